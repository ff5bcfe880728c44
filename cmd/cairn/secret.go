package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"filippo.io/age"
	"golang.org/x/term"

	"github.com/cairn-backup/cairn/engine"
)

// maxSecret bounds what is read of a passphrase or a key file, in bytes.
const maxSecret = 64 << 10

// A secretSource says where one secret comes from. At most one of its fields
// is set.
type secretSource struct {
	keyFile           string
	sshKey            string // a file; for a new key only, keyFile finds out by itself
	publicKey         string // the text; for a new key only, it opens nothing
	passphraseFile    string
	passphraseCommand string
	passphrase        string // of the environment; never of an argument, which others can see
	direct            bool   // passphrase counts although it may be empty
}

// given returns how many ways s names.
func (s secretSource) given() int {
	n := 0
	for _, way := range []bool{
		s.keyFile != "", s.sshKey != "", s.publicKey != "", s.passphraseFile != "", s.passphraseCommand != "", s.direct,
	} {
		if way {
			n++
		}
	}
	return n
}

// secretSource returns where the secret comes from: the flags, else the
// variables, else nowhere. To name two ways of one kind is an error.
func (a *app) secretSource() (secretSource, error) {
	flags := secretSource{
		keyFile: a.flags.keyFile, passphraseFile: a.flags.passphraseFile, passphraseCommand: a.flags.passphraseCommand,
	}
	switch flags.given() {
	case 0:
	case 1:
		return flags, nil
	default:
		return secretSource{}, usagef("give only one of --key-file, --passphrase-file and --passphrase-command")
	}
	passphrase, set := a.env[envPassphrase]
	vars := secretSource{
		keyFile: a.env[envKeyFile], passphraseFile: a.env[envPassphraseFile], passphraseCommand: a.env[envPassphraseCommand],
		passphrase: passphrase, direct: set,
	}
	if vars.given() > 1 {
		return secretSource{}, usagef("set only one of %s, %s, %s and %s", envKeyFile, envPassphraseFile, envPassphraseCommand, envPassphrase)
	}
	return vars, nil
}

// An asking says how a passphrase is asked for on a terminal.
type asking struct {
	what  string // what stands before the colon
	twice bool   // for a new one
}

// secret returns the secret that s leads to, and asks on a terminal if s leads
// nowhere.
func (a *app) secret(ctx context.Context, s secretSource, how asking) (engine.Secret, error) {
	switch {
	case s.keyFile != "":
		return readKeyFile(s.keyFile)
	case s.sshKey != "":
		if _, err := readLimited(s.sshKey); err != nil {
			return nil, usagef("SSH key: %v", err)
		}
		return engine.SSHKey(s.sshKey), nil
	case s.publicKey != "":
		return engine.PublicKey(s.publicKey), nil
	case s.passphraseFile != "":
		p, err := readLimited(s.passphraseFile)
		if err != nil {
			return nil, usagef("passphrase file: %v", err)
		}
		return passphrase(p, "the passphrase file "+printable(s.passphraseFile))
	case s.passphraseCommand != "":
		p, err := a.runPassphraseCommand(ctx, s.passphraseCommand)
		if err != nil {
			return nil, err
		}
		return passphrase(p, "the output of the passphrase command")
	case s.direct:
		return passphrase([]byte(s.passphrase), envPassphrase)
	}
	return a.ask(ctx, how)
}

// passphrase makes a secret of p, without the line end that editors and echo
// add. from says where it comes from.
func passphrase(p []byte, from string) (engine.Secret, error) {
	p = bytes.TrimSuffix(p, []byte("\n"))
	p = bytes.TrimSuffix(p, []byte("\r"))
	switch {
	case len(p) == 0:
		return nil, usagef("the passphrase is empty (%s)", from)
	case bytes.ContainsAny(p, "\n\x00"):
		return nil, usagef("the passphrase has more than one line (%s)", from)
	}
	return engine.Passphrase(string(p)), nil
}

// readKeyFile reads a file of age identities, or an SSH private key. It is read
// here so that a file that is neither is told apart from a key that does not
// fit.
func readKeyFile(path string) (engine.Secret, error) {
	p, err := readLimited(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, withHint(usagef("there is no key file %s", printable(path)), "if the key is lost and no copy of it is left, nothing else opens the repository but its other keys")
	}
	if err != nil {
		return nil, usagef("key file: %v", err)
	}
	if isPrivatePEM(p) {
		return engine.SSHKey(path), nil
	}
	ids, err := age.ParseIdentities(bytes.NewReader(p))
	if err != nil || len(ids) == 0 {
		// The text of err may quote a line of the file, which may be a secret.
		return nil, usagef("%s is not a key file (it holds no line AGE-SECRET-KEY-1... and is no SSH private key)", printable(path))
	}
	return engine.Identity(ids...), nil
}

// isPrivatePEM reports whether p begins as SSH private keys do. Which of them
// can be used the engine says.
func isPrivatePEM(p []byte) bool {
	line, _, _ := bytes.Cut(bytes.TrimSpace(p), []byte("\n"))
	line = bytes.TrimSpace(line)
	return bytes.HasPrefix(line, []byte("-----BEGIN ")) && bytes.HasSuffix(line, []byte("PRIVATE KEY-----"))
}

// readLimited reads a small file.
func readLimited(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	p, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err == nil && len(p) > maxSecret {
		err = fmt.Errorf("%s is larger than %s", path, size(int64(maxSecret)))
	}
	return p, err
}

// runPassphraseCommand runs line in the user's shell and returns what it
// prints. It may talk to the terminal; it does not see CAIRN_PASSPHRASE.
func (a *app) runPassphraseCommand(ctx context.Context, line string) ([]byte, error) {
	name, flag := "/bin/sh", "-c"
	if runtime.GOOS == "windows" {
		name, flag = "cmd", "/c"
	}
	cmd := exec.CommandContext(ctx, name, flag, line)
	cmd.Env = a.childEnv()
	cmd.Stderr = a.stderr
	out, err := cmd.Output()
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		return nil, usagef("the passphrase command failed: %v", err)
	case len(out) > maxSecret:
		return nil, usagef("the passphrase command printed more than %s", size(int64(maxSecret)))
	}
	return out, nil
}

// childEnv returns the environment for commands that this program starts: all
// but the passphrase.
func (a *app) childEnv() []string {
	env := make([]string, 0, len(a.env))
	for name, value := range a.env {
		if name != envPassphrase {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// ask asks for a passphrase on the terminal. Where there is none it says which
// other ways there are.
func (a *app) ask(ctx context.Context, how asking) (engine.Secret, error) {
	fd, ok := terminal(a.stdin)
	if !ok {
		return nil, withHint(usagef("no %s is given, and there is no terminal to ask on", how.what), "%s", waysToGive)
	}
	p, err := a.readPassword(ctx, fd, how.what)
	if err != nil {
		return nil, err
	}
	if how.twice {
		again, err := a.readPassword(ctx, fd, how.what+" again")
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(p, again) {
			return nil, usagef("the two passphrases differ")
		}
	}
	return passphrase(p, "as typed")
}

const waysToGive = "use --key-file, --passphrase-file or --passphrase-command, or set one of " +
	envKeyFile + ", " + envPassphraseFile + ", " + envPassphraseCommand + ", " + envPassphrase

// readPassword reads a line from the terminal fd without showing it.
func (a *app) readPassword(ctx context.Context, fd int, what string) ([]byte, error) {
	state, err := term.GetState(fd)
	if err != nil {
		return nil, fmt.Errorf("terminal: %w", err)
	}
	// Where the prompt cannot be shown there is nobody to tell.
	_, _ = fmt.Fprintf(a.stderr, "%s: ", strings.ToUpper(what[:1])+what[1:])
	type line struct {
		p   []byte
		err error
	}
	read := make(chan line, 1)
	go func() { // a read of a terminal cannot be cancelled: it may outlive this call
		p, err := term.ReadPassword(fd)
		read <- line{p, err}
	}()
	select {
	case l := <-read:
		_, _ = fmt.Fprintln(a.stderr)
		if errors.Is(l.err, io.EOF) {
			return nil, nil // an empty passphrase, which is refused with its own words
		}
		return l.p, l.err
	case <-ctx.Done():
		_, _ = fmt.Fprintln(a.stderr)
		return nil, errors.Join(ctx.Err(), term.Restore(fd, state))
	}
}
