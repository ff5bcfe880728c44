package keys

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strconv"

	"filippo.io/age"

	"github.com/cairn-backup/cairn/chunk/seal"
	"github.com/cairn-backup/cairn/chunk/wire"
)

// Types of slots.
const (
	TypePassphrase = "passphrase"
	TypeX25519     = "x25519"
	TypeSSH        = "ssh"
)

const (
	// maxSlot bounds a slot object: an age file with one recipient is about
	// 400 bytes, one of a post-quantum recipient 2 KiB.
	maxSlot = 64 << 10
	// maxLabel bounds a slot's label, in bytes.
	maxLabel = 255
)

// ErrExpensiveSlot says that a slot asks for more stretching than is allowed.
// It is found before any memory is taken.
var ErrExpensiveSlot = errors.New("the key slot asks for more than 2^18 scrypt rounds; it is refused, since a hostile store could ask for all memory")

// A Slot is the clear part of a slot object.
type Slot struct {
	Repository RepositoryID
	Label      string
	Type       string
	LogN       uint8 // passphrase: log2 of scrypt's N
}

type slotEnvelope struct {
	Repository []byte `cbor:"1,keyasint"`
	Label      string `cbor:"2,keyasint"`
	Type       string `cbor:"3,keyasint"`
	LogN       uint64 `cbor:"4,keyasint"`
}

type slotPayload struct {
	Version    uint64 `cbor:"1,keyasint"`
	Repository []byte `cbor:"2,keyasint"`
	Root       []byte `cbor:"3,keyasint"`
}

// SealSlot returns a slot object that wraps root for secret, and the name that
// its key is made of. It is not a sealed object: the header is clear, and the
// age file behind it carries the repository id once more, authenticated.
func SealSlot(root Root, repo RepositoryID, secret Secret, label string) (name [16]byte, object []byte, err error) {
	if len(label) > maxLabel {
		return name, nil, fmt.Errorf("key slot: the label is longer than %d bytes", maxLabel)
	}
	if len(secret.recipients) == 0 {
		return name, nil, fmt.Errorf("key slot: %w: it cannot wrap a key, give a passphrase, an X25519 or an SSH key", ErrNoSecret)
	}
	envelope, err := wire.Marshal(slotEnvelope{Repository: repo[:], Label: label, Type: secret.slotType, LogN: uint64(secret.logN())})
	if err != nil {
		return name, nil, err
	}
	h := seal.Header{Kind: seal.KindSlot, Suite: seal.SuiteAESGCM, Envelope: envelope}
	if _, err := rand.Read(h.Salt[:]); err != nil {
		return name, nil, err
	}
	payload, err := wire.Marshal(slotPayload{Version: 1, Repository: repo[:], Root: root[:]})
	if err != nil {
		return name, nil, err
	}
	var out bytes.Buffer
	out.Write(h.Append(nil))
	w, err := age.Encrypt(&out, secret.recipients...)
	if err != nil {
		return name, nil, fmt.Errorf("key slot: %w", err)
	}
	if _, err := w.Write(payload); err != nil {
		return name, nil, fmt.Errorf("key slot: %w", err)
	}
	if err := w.Close(); err != nil {
		return name, nil, fmt.Errorf("key slot: %w", err)
	}
	return h.Name(), out.Bytes(), nil
}

// ReadSlot reads the clear part of a slot object.
func ReadSlot(object []byte) (Slot, []byte, error) {
	if len(object) > maxSlot {
		return Slot{}, nil, fmt.Errorf("key slot: %d bytes: %w", len(object), seal.ErrDamaged)
	}
	h, n, err := seal.ParseHeader(object)
	if err != nil {
		return Slot{}, nil, fmt.Errorf("key slot: %w", err)
	}
	var e slotEnvelope
	if h.Kind != seal.KindSlot {
		return Slot{}, nil, fmt.Errorf("key slot: the object is of kind %d: %w", h.Kind, seal.ErrDamaged)
	}
	if err := wire.Unmarshal(h.Envelope, &e); err != nil || len(e.Repository) != 16 || e.LogN > 63 {
		return Slot{}, nil, fmt.Errorf("key slot: envelope: %w", seal.ErrDamaged)
	}
	return Slot{Repository: RepositoryID(e.Repository), Label: e.Label, Type: e.Type, LogN: uint8(e.LogN)}, object[n:], nil
}

// OpenSlot unwraps the repository key with secret. A secret that does not fit
// is ErrWrongKey.
func OpenSlot(object []byte, repo RepositoryID, secret Secret) (Root, error) {
	if err := secret.CanOpen(); err != nil {
		return Root{}, fmt.Errorf("key slot: %w", err)
	}
	slot, file, err := ReadSlot(object)
	if err != nil {
		return Root{}, err
	}
	if slot.Repository != repo {
		return Root{}, fmt.Errorf("key slot: of another repository: %w", ErrWrongKey)
	}
	if rounds, is := scryptRounds(file); is && rounds > maxLogN {
		return Root{}, fmt.Errorf("key slot %q: 2^%d rounds: %w", slot.Label, rounds, ErrExpensiveSlot)
	}
	r, err := age.Decrypt(bytes.NewReader(file), secret.identities...)
	if noMatch := new(age.NoIdentityMatchError); errors.As(err, &noMatch) {
		return Root{}, fmt.Errorf("key slot: %w", ErrWrongKey)
	}
	if err != nil {
		return Root{}, errors.Join(fmt.Errorf("key slot: %w", err), seal.ErrDamaged)
	}
	plain, err := io.ReadAll(io.LimitReader(r, maxSlot))
	if err != nil {
		return Root{}, errors.Join(fmt.Errorf("key slot: %w", err), seal.ErrDamaged)
	}
	var p slotPayload
	if err := wire.Unmarshal(plain, &p); err != nil || p.Version != 1 || len(p.Root) != 32 {
		return Root{}, fmt.Errorf("key slot: payload: %w", seal.ErrDamaged)
	}
	if !bytes.Equal(p.Repository, repo[:]) {
		return Root{}, fmt.Errorf("key slot: it wraps the key of another repository: %w", seal.ErrDamaged)
	}
	return Root(p.Root), nil
}

// scryptRounds finds the work factor in the head of an age file: the age
// library refuses more than it was told too, but says so as one of many
// reasons. is is false for other recipients.
func scryptRounds(file []byte) (logN uint64, is bool) {
	const stanza = "\n-> scrypt "
	head := file[:min(len(file), 4096)]
	_, after, ok := bytes.Cut(head, []byte(stanza))
	if !ok {
		return 0, false
	}
	line, _, _ := bytes.Cut(after, []byte("\n"))
	_, rounds, _ := bytes.Cut(line, []byte(" "))
	n, err := strconv.ParseUint(string(rounds), 10, 64)
	if err != nil {
		// Not a number that fits: more than any limit.
		return 1 << 32, true
	}
	return n, true
}
