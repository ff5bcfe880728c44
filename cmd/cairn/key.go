package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/cairn-backup/cairn/engine"
)

func (a *app) keyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "List, add and remove what opens the repository",
		Example: `  cairn key list
  cairn key add --new-key-file ~/second.key --label laptop`,
		Args: cobra.ArbitraryArgs,
		RunE: group,
	}
	cmd.AddCommand(a.keyListCommand(), a.keyAddCommand(), a.keyRemoveCommand(), a.keyPasswdCommand())
	return cmd
}

func (a *app) keyListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the keys", Example: "  cairn key list",
		Args: atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.keyList(cmd.Context()) },
	}
}

func (a *app) keyAddCommand() *cobra.Command {
	var s secretSource
	var label string
	cmd := &cobra.Command{
		Use:   "add",
		Short: "Add a passphrase or a key that opens the repository as well",
		Long: `Add a passphrase or a key that opens the repository as well. If the new key file
does not exist, a new key is written to it.

An SSH key (Ed25519, or RSA of at least 2,048 bits, without a passphrase) then
opens the repository by --key-file. A public key, age1... or the line of an SSH
.pub file, is enough to let the one who has its private half in: whether that
opens cannot be tried here.`,
		Example: `  cairn key add --label alice
  cairn key add --new-key-file ~/second.key --label laptop
  cairn key add --ssh-key ~/.ssh/id_ed25519
  cairn key add --public-key "$(cat bob.pub)" --label bob`,
		Args: atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, name := range []string{"ssh-key", "public-key"} {
				if f := cmd.Flags().Lookup(name); f.Changed && f.Value.String() == "" {
					return usagef("--%s is empty", name)
				}
			}
			return a.keyAdd(cmd.Context(), s, label)
		},
	}
	newSecretFlags(cmd, &s)
	cmd.Flags().StringVar(&s.keyFile, "new-key-file", "", "`file` with the new key")
	cmd.Flags().StringVar(&s.sshKey, "ssh-key", "", "`file` with the SSH private key to add")
	cmd.Flags().StringVar(&s.publicKey, "public-key", "", "`text` of the public key to add")
	cmd.Flags().StringVar(&label, "label", "", "`text` that says which key this is")
	return cmd
}

func (a *app) keyRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "remove KEY",
		Short: "Remove a key, so that it does not open the repository any more",
		Long: `Remove a key, named by its id as key list shows it or the first digits of it.
The last one stays. Who has copied the repository's key keeps it: removing takes
nothing back. Another machine that it has opened the repository on goes on
opening by it for up to a day, or until cairn cache clean is run there.`,
		Example: "  cairn key remove 5be1",
		Args:    exactly("a KEY"),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.keyRemove(cmd.Context(), args[0]) },
	}
}

func (a *app) keyPasswdCommand() *cobra.Command {
	var s secretSource
	cmd := &cobra.Command{
		Use:   "passwd [KEY]",
		Short: "Put a new passphrase in the place of an old one",
		Long: `Put a new passphrase in the place of an old one. KEY says which, if there are
several passphrases. The new one works before the old one is removed.`,
		Example: "  cairn key passwd",
		Args:    atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id := ""
			if len(args) > 0 {
				id = args[0]
			}
			return a.keyPasswd(cmd.Context(), s, id)
		},
	}
	newSecretFlags(cmd, &s)
	return cmd
}

func newSecretFlags(cmd *cobra.Command, s *secretSource) {
	cmd.Flags().StringVar(&s.passphraseFile, "new-passphrase-file", "", "`file` with the new passphrase")
	cmd.Flags().StringVar(&s.passphraseCommand, "new-passphrase-command", "", "shell `command` that prints the new passphrase")
}

type keyJSON struct {
	ID    string `json:"id"`
	Type  string `json:"type"`
	Label string `json:"label"`
}

type keysJSON struct {
	Schema int       `json:"schema"`
	Keys   []keyJSON `json:"keys"`
}

// slots returns the keys of a repository.
func slots(ctx context.Context, repo *engine.Repository) ([]engine.KeySlot, error) {
	var list []engine.KeySlot
	for k, err := range repo.Keys(ctx) {
		if err != nil {
			return nil, err
		}
		list = append(list, k)
	}
	return list, nil
}

func (a *app) keyList(ctx context.Context) error {
	repo, _, err := a.open(ctx, reads)
	if err != nil {
		return err
	}
	defer repo.Close() // only read
	list, err := slots(ctx, repo)
	if err != nil {
		return err
	}
	if a.out.json {
		doc := keysJSON{Schema: schema, Keys: make([]keyJSON, len(list))}
		for i, k := range list {
			doc.Keys[i] = keyJSON{k.ID, k.Type, k.Label}
		}
		return a.out.document(doc)
	}
	var t table
	t.row("ID", "TYPE", "LABEL")
	for _, k := range list {
		t.row(k.ID, k.Type, printableText(k.Label))
	}
	return t.print(a.out)
}

func (a *app) keyAdd(ctx context.Context, s secretSource, label string) (err error) {
	if s.given() > 1 {
		return usagef("give only one of --new-key-file, --ssh-key, --public-key, --new-passphrase-file and --new-passphrase-command")
	}
	repo, l, err := a.open(ctx, writes)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, repo.Close()) }()
	madeKey := false
	if s.keyFile != "" {
		if madeKey, err = makeKeyFile(location{chosen: true}, s.keyFile); err != nil {
			return err
		}
	}
	secret, err := a.newSecret(ctx, s)
	if err != nil {
		return err
	}
	id, err := repo.AddKey(ctx, secret, label)
	if err != nil {
		return err
	}
	if a.out.json {
		return a.out.document(keyAddedJSON{Schema: schema, ID: id, MadeKey: madeKey})
	}
	a.out.say("added key %s to %s", id, printable(l.text))
	if madeKey {
		a.out.say("the key is new and in %s: copy it off this machine", printable(s.keyFile))
	}
	return nil
}

type keyAddedJSON struct {
	Schema  int    `json:"schema"`
	ID      string `json:"id"`
	MadeKey bool   `json:"made_key"`
	Removed string `json:"removed,omitempty"`
}

// newSecret reads a secret that is to open the repository from now on.
func (a *app) newSecret(ctx context.Context, s secretSource) (engine.Secret, error) {
	if _, ok := terminal(a.stdin); s.given() == 0 && !ok {
		return nil, withHint(usagef("no new passphrase is given, and there is no terminal to ask on"),
			"use --new-passphrase-file or --new-passphrase-command (key add: or --new-key-file, --ssh-key or --public-key)")
	}
	return a.secret(ctx, s, asking{what: "new passphrase", twice: true})
}

func (a *app) keyRemove(ctx context.Context, id string) (err error) {
	repo, _, err := a.open(ctx, writes)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, repo.Close()) }()
	if err := repo.RemoveKey(ctx, id); err != nil {
		return err
	}
	if a.out.json {
		return a.out.document(keyAddedJSON{Schema: schema, Removed: id})
	}
	a.out.say("removed key %s", id)
	return nil
}

func (a *app) keyPasswd(ctx context.Context, s secretSource, id string) (err error) {
	if s.given() > 1 {
		return usagef("give only one of --new-passphrase-file and --new-passphrase-command")
	}
	repo, _, err := a.open(ctx, writes)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, repo.Close()) }()
	list, err := slots(ctx, repo)
	if err != nil {
		return err
	}
	old, err := passphraseSlot(list, id)
	if err != nil {
		return err
	}
	secret, err := a.newSecret(ctx, s)
	if err != nil {
		return err
	}
	added, err := repo.AddKey(ctx, secret, old.Label)
	if err != nil {
		return err
	}
	if err := repo.RemoveKey(ctx, old.ID); err != nil {
		return withHint(fmt.Errorf("the new passphrase works, but the old one was not removed: %w", err), "cairn key remove %s", old.ID)
	}
	if a.out.json {
		return a.out.document(keyAddedJSON{Schema: schema, ID: added, Removed: old.ID})
	}
	a.out.say("the passphrase is changed: key %s in place of %s", added, old.ID)
	return nil
}

// passphraseSlot returns the passphrase that id names, or the only one there is.
func passphraseSlot(list []engine.KeySlot, id string) (engine.KeySlot, error) {
	var found []engine.KeySlot
	for _, k := range list {
		if k.Type == "passphrase" && len(k.ID) >= len(id) && k.ID[:len(id)] == id {
			found = append(found, k)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return engine.KeySlot{}, usagef("the repository has %d passphrases: say which, by an id of cairn key list", len(found))
	case id != "":
		return engine.KeySlot{}, fmt.Errorf("no passphrase begins with %q", id)
	}
	return engine.KeySlot{}, withHint(errors.New("the repository has no passphrase"), "cairn key add adds one")
}
