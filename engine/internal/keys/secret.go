package keys

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"filippo.io/age"
	"filippo.io/age/agessh"
)

const (
	// logN is log2 of scrypt's N for new slots: 64 MiB and 0.2 CPU seconds.
	// age's own default of 2^18 costs 256 MiB and 0.7 to 1.3 s, on each open.
	logN = 16
	// maxLogN is the most that a slot may ask for.
	maxLogN = 18
	// maxKeyFile bounds a key file, in bytes.
	maxKeyFile = 1 << 20
)

// A Secret opens slots and makes new ones. That of a public key only makes them.
type Secret struct {
	slotType   string          // of the slots that it makes
	recipients []age.Recipient // all of type slotType
	identities []age.Identity
	opens      []string // types of slots that the identities may fit
}

// Fits reports whether a slot of that type is worth an attempt.
func (s Secret) Fits(slotType string) bool { return slices.Contains(s.opens, slotType) }

// CanOpen returns nil, or ErrNoSecret if s can make slots only.
func (s Secret) CanOpen() error {
	if len(s.identities) == 0 {
		return fmt.Errorf("%w: a public key opens nothing, give the private key that belongs to it", ErrNoSecret)
	}
	return nil
}

// String shows nothing of the secret.
func (Secret) String() string { return redacted }

// Format shows nothing of the secret, whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) } // fmt has no way to report it

func (s Secret) logN() uint8 {
	if s.slotType == TypePassphrase {
		return logN
	}
	return 0
}

// Passphrase returns a Secret that stretches p.
func Passphrase(p string) (Secret, error) {
	if p == "" {
		return Secret{}, fmt.Errorf("%w: the passphrase is empty", ErrNoSecret)
	}
	r, err := age.NewScryptRecipient(p)
	if err != nil {
		return Secret{}, fmt.Errorf("passphrase: %w", err)
	}
	r.SetWorkFactor(logN)
	id, err := age.NewScryptIdentity(p)
	if err != nil {
		return Secret{}, fmt.Errorf("passphrase: %w", err)
	}
	id.SetMaxWorkFactor(maxLogN)
	return Secret{
		slotType: TypePassphrase, recipients: []age.Recipient{r},
		identities: []age.Identity{id}, opens: []string{TypePassphrase},
	}, nil
}

// File returns the Secret of the age identities in the file at path.
func File(path string) (Secret, error) {
	f, err := os.Open(path)
	if err != nil {
		return Secret{}, fmt.Errorf("key file: %w", err)
	}
	defer f.Close() // only read
	ids, err := age.ParseIdentities(io.LimitReader(f, maxKeyFile))
	if err != nil {
		// The library's text may quote the line, which may be a secret.
		return Secret{}, fmt.Errorf("key file %s: %w: not a file of age identities", path, ErrNoSecret)
	}
	return Identities(ids)
}

// Identities returns the Secret of ids. It makes slots of the X25519 identities
// among them or, if there are none, of the SSH ones.
func Identities(ids []age.Identity) (Secret, error) {
	if len(ids) == 0 {
		return Secret{}, fmt.Errorf("%w: no identity", ErrNoSecret)
	}
	s := Secret{slotType: TypeX25519, identities: ids}
	var ssh []age.Recipient
	for _, id := range ids {
		slotType := TypeX25519
		switch id := id.(type) {
		case *age.X25519Identity:
			s.recipients = append(s.recipients, id.Recipient())
		case *agessh.Ed25519Identity:
			slotType, ssh = TypeSSH, append(ssh, id.Recipient())
		case *agessh.RSAIdentity:
			slotType, ssh = TypeSSH, append(ssh, id.Recipient())
		case *agessh.EncryptedSSHIdentity:
			slotType, ssh = TypeSSH, append(ssh, id.Recipient())
		}
		if !s.Fits(slotType) {
			s.opens = append(s.opens, slotType)
		}
	}
	if len(s.recipients) == 0 && len(ssh) > 0 {
		s.slotType, s.recipients = TypeSSH, ssh
	}
	return s, nil
}

// NewFile writes a new X25519 identity to path, mode 0600, durably; an existing
// file is left alone and is an error.
func NewFile(path string) error {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return fmt.Errorf("key file: %w", err)
	}
	text := strings.Join([]string{
		"# cairn key file: whoever has it opens every repository made with it.",
		"# public key: " + id.Recipient().String(),
		id.String(), "",
	}, "\n")
	if err := createWhole(path, text); err != nil {
		return fmt.Errorf("key file: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

// createWhole creates a file with that text, or nothing: a process that is killed
// half-way must not leave a cut-off file that looks like a key and keeps the
// next run from making one.
func createWhole(path, text string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".cairn-key-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if rm := os.Remove(f.Name()); rm != nil {
			err = errors.Join(err, rm) // it holds the key
		}
	}()
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	err = os.Link(f.Name(), path)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrExist):
		return &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
	}
	// A file system without links.
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = out.WriteString(text)
	if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// syncDir makes a new entry of dir durable. Systems that cannot sync a
// directory say so with an error that changes nothing.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("key file: %w", err)
	}
	err = d.Sync()
	if errors.Is(err, fs.ErrInvalid) || errors.Is(err, fs.ErrPermission) || errors.Is(err, errors.ErrUnsupported) {
		err = nil
	}
	return errors.Join(err, d.Close())
}
