package main

import (
	"context"

	"github.com/spf13/cobra"
)

func (a *app) initCommand() *cobra.Command {
	var label string
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make a repository",
		Long: `Make a repository, in a directory that is empty or does not exist, or in an object
store, which is tried out first.

It is opened by a passphrase or by a key file; if the key file does not exist, a
new key is written to it. Without --repo the default repository is made, and if
nothing is said about a secret its key is generated.`,
		Example: `  cairn -r /mnt/disk/backup --key-file ~/cairn.key init
  cairn -r /mnt/disk/backup init      # asks for a passphrase, twice
  cairn -r s3://bucket/prefix init    # AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile`,
		Args: atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.init(cmd.Context(), label) },
	}
	cmd.Flags().StringVar(&label, "label", "", "`text` that says which key this is")
	return cmd
}

func (a *app) init(ctx context.Context, label string) error {
	l, err := a.locate()
	if err != nil {
		return err
	}
	s, err := a.secretSource()
	if err != nil {
		return err
	}
	if s.given() == 0 && !l.chosen {
		if s.keyFile, err = a.defaultKeyFile(); err != nil {
			return err
		}
	}
	madeKey, err := a.initAt(ctx, l, s, label)
	if err != nil {
		return err
	}
	if a.out.json {
		return a.out.document(initJSON{Schema: schema, Repository: l.where(), RepositoryB64: b64(l.where()), KeyFile: s.keyFile, MadeKey: madeKey})
	}
	a.out.say("made a repository at %s", printable(l.text))
	if l.single {
		a.out.say("It is for a single writer: two machines that write at once would destroy each other's work.")
	}
	if madeKey {
		a.out.say("its key is new and in %s", printable(s.keyFile))
		a.out.say("Copy the key off this machine now: without it nobody can read the backups.")
	}
	return nil
}

type initJSON struct {
	Event         string `json:"event,omitempty"`
	Schema        int    `json:"schema"`
	Repository    string `json:"repository"`
	RepositoryB64 string `json:"repository_b64,omitempty"`
	KeyFile       string `json:"key_file,omitempty"`
	MadeKey       bool   `json:"made_key"`
}
