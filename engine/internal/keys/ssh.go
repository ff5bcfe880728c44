package keys

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"golang.org/x/crypto/ssh"
)

// SSHFile returns the Secret of the SSH private key in the file at path: Ed25519,
// or RSA of at least 2,048 bits, in any form that ssh-keygen writes. One that is
// protected by a passphrase is ErrNoSecret.
func SSHFile(path string) (Secret, error) {
	f, err := os.Open(path)
	if err != nil {
		return Secret{}, fmt.Errorf("SSH key: %w", err)
	}
	defer f.Close() // only read
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return Secret{}, fmt.Errorf("SSH key: %w", err)
	}
	// What the libraries say of a bad key may quote it.
	refuse := func(why string) (Secret, error) {
		return Secret{}, fmt.Errorf("SSH key %s: %w: %s", path, ErrNoSecret, why)
	}
	signer, err := ssh.ParsePrivateKey(text)
	if _, locked := errors.AsType[*ssh.PassphraseMissingError](err); locked {
		return refuse("it is protected by a passphrase; give a copy without one (ssh-keygen -p), or a key made for this purpose")
	}
	if err != nil {
		if _, _, _, _, err := ssh.ParseAuthorizedKey(text); err == nil {
			return refuse("this is the public half; give the file without .pub")
		}
		return refuse("not an SSH private key")
	}
	if _, err := sshRecipient(signer.PublicKey()); err != nil {
		return refuse(err.Error())
	}
	id, err := agessh.ParseIdentity(text)
	if err != nil {
		return refuse("not an Ed25519 or RSA key")
	}
	return Identities([]age.Identity{id})
}

// sshRecipient returns the recipient that key is, if it can be one. Its errors
// quote nothing.
func sshRecipient(key ssh.PublicKey) (age.Recipient, error) {
	switch key.Type() {
	case ssh.KeyAlgoED25519:
		r, err := agessh.NewEd25519Recipient(key)
		if err != nil {
			return nil, errors.New("not a good Ed25519 key")
		}
		return r, nil
	case ssh.KeyAlgoRSA:
		r, err := agessh.NewRSARecipient(key)
		if err != nil {
			return nil, errors.New("RSA keys need at least 2048 bits")
		}
		return r, nil
	}
	return nil, fmt.Errorf("keys of type %s cannot encrypt; give an Ed25519 or RSA key", key.Type())
}

// PublicKey returns the Secret of a public key, which makes slots and opens
// none: an age recipient (age1...) or one line as in authorized_keys
// (ssh-ed25519 ..., ssh-rsa ...). The text may have space around it.
func PublicKey(text string) (Secret, error) {
	text = strings.TrimSpace(text)
	// A private key that was given by mistake must not get into the error.
	refuse := func(why string) (Secret, error) { return Secret{}, fmt.Errorf("public key: %w: %s", ErrNoSecret, why) }
	switch {
	case strings.HasPrefix(text, "AGE-SECRET-KEY-"), strings.Contains(text, "PRIVATE KEY-----"):
		return refuse("this is a private key; give its public half")
	case strings.HasPrefix(text, "age1"):
		r, err := age.ParseX25519Recipient(text)
		if err != nil {
			return refuse("not an X25519 recipient, age1 and 58 more characters")
		}
		return Secret{slotType: TypeX25519, recipients: []age.Recipient{r}}, nil
	}
	key, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(text))
	if err != nil {
		return refuse("want age1..., ssh-ed25519 ... or ssh-rsa ...")
	}
	if len(rest) > 0 {
		return refuse("more than one line; give one key")
	}
	r, err := sshRecipient(key)
	if err != nil {
		return refuse(err.Error())
	}
	return Secret{slotType: TypeSSH, recipients: []age.Recipient{r}}, nil
}
