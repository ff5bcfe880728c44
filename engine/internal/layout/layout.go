// Package layout names the objects of a repository: which key holds what. It
// is the only place where keys are put together or taken apart.
//
//	config                                   one
//	keys/<32 hex>                            key slots
//	packs/<2 hex>/<32 hex>                   packs; the 2 digits are the first of the 32
//	index/<32 hex>                           index segments
//	log/<20 digits>                          records, from 1 on
//	checkpoints/<20 digits>-<32 hex>         state after that record; the digits are of its hash
//	checkpoints/<20 digits>-<32 hex>-repaired
//
// Hexadecimal digits are lower case. No key is another key plus a slash.
package layout

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/cairn-backup/cairn/backend"
)

// Config is the key of the config object, whose creation decides an Init.
const Config backend.Key = "config"

// Prefixes of the kinds of objects, for backend.List.
const (
	Slots       backend.Key = "keys/"
	Packs       backend.Key = "packs/"
	Segments    backend.Key = "index/"
	Records     backend.Key = "log/"
	Checkpoints backend.Key = "checkpoints/"
	// Probes is where backend.Validate tries a store.
	Probes backend.Key = "probe/"
)

// ErrKey is wrapped by the errors of the parsers: the key is not one that this
// package makes.
var ErrKey = errors.New("not a key of a repository")

const (
	hexDigits = 32
	digits    = 20
	repaired  = "-repaired"
)

// Slot returns the key of a key slot.
func Slot(id [16]byte) backend.Key {
	return Slots + backend.Key(hex.EncodeToString(id[:]))
}

// Pack returns the key of a pack.
func Pack(id [16]byte) backend.Key {
	name := backend.Key(hex.EncodeToString(id[:]))
	return Packs + name[:2] + "/" + name
}

// PackShard returns the prefix of the packs whose id begins with first.
func PackShard(first byte) backend.Key {
	return Packs + backend.Key(hex.EncodeToString([]byte{first})) + "/"
}

// Segment returns the key of an index segment.
func Segment(id [16]byte) backend.Key {
	return Segments + backend.Key(hex.EncodeToString(id[:]))
}

// Record returns the key of record n.
func Record(n uint64) backend.Key {
	return Records + number(n)
}

// RecordBlock returns the prefix of the keys of the records, n among them, whose
// numbers differ only in so many of the last digits.
func RecordBlock(n uint64, last int) backend.Key {
	key := Record(n)
	return key[:len(key)-last]
}

// A CheckpointName says what a checkpoint's key says.
type CheckpointName struct {
	N        uint64   // the last record in it
	Hash     [16]byte // the first half of the hash of that record
	Repaired bool     // made by a repair of the log, not by a fold of records 1 to N
}

// Checkpoint returns the key of the checkpoint after record n, whose hash is
// hash; only the first half of it is in the key.
func Checkpoint(n uint64, hash [32]byte) backend.Key {
	return CheckpointName{N: n, Hash: [16]byte(hash[:16])}.Key()
}

// Key returns the key of the checkpoint with that name.
func (c CheckpointName) Key() backend.Key {
	key := Checkpoints + number(c.N) + "-" + backend.Key(hex.EncodeToString(c.Hash[:]))
	if c.Repaired {
		key += repaired
	}
	return key
}

func number(n uint64) backend.Key {
	return backend.Key(fmt.Sprintf("%0*d", digits, n))
}

// ParseSlot returns the id of the key slot that Slot gave key to.
func ParseSlot(key backend.Key) ([16]byte, error) { return parseNamed(key, Slots) }

// ParseSegment returns the id of the segment that Segment gave key to.
func ParseSegment(key backend.Key) ([16]byte, error) { return parseNamed(key, Segments) }

// ParsePack returns the id of the pack that Pack gave key to.
func ParsePack(key backend.Key) ([16]byte, error) {
	rest, ok := strings.CutPrefix(string(key), string(Packs))
	if !ok || len(rest) != 3+hexDigits || rest[2] != '/' || rest[:2] != rest[3:5] {
		return [16]byte{}, wrong(key)
	}
	return parseHex(key, rest[3:])
}

// ParseRecord returns the number of the record that Record gave key to.
func ParseRecord(key backend.Key) (uint64, error) {
	rest, ok := strings.CutPrefix(string(key), string(Records))
	if !ok {
		return 0, wrong(key)
	}
	return parseNumber(key, rest)
}

// ParseCheckpoint returns the name of the checkpoint that has that key.
func ParseCheckpoint(key backend.Key) (CheckpointName, error) {
	rest, ok := strings.CutPrefix(string(key), string(Checkpoints))
	if !ok || len(rest) < digits+1+hexDigits || rest[digits] != '-' {
		return CheckpointName{}, wrong(key)
	}
	var c CheckpointName
	var err error
	if c.N, err = parseNumber(key, rest[:digits]); err != nil {
		return CheckpointName{}, err
	}
	rest = rest[digits+1:]
	if c.Hash, err = parseHex(key, rest[:hexDigits]); err != nil {
		return CheckpointName{}, err
	}
	switch rest[hexDigits:] {
	case "":
	case repaired:
		c.Repaired = true
	default:
		return CheckpointName{}, wrong(key)
	}
	return c, nil
}

func parseNamed(key, prefix backend.Key) ([16]byte, error) {
	rest, ok := strings.CutPrefix(string(key), string(prefix))
	if !ok {
		return [16]byte{}, wrong(key)
	}
	return parseHex(key, rest)
}

func parseHex(key backend.Key, s string) ([16]byte, error) {
	var id [16]byte
	// hex accepts capitals, keys have none.
	if len(s) != hexDigits || strings.ToLower(s) != s {
		return id, wrong(key)
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return [16]byte{}, wrong(key)
	}
	return id, nil
}

func parseNumber(key backend.Key, s string) (uint64, error) {
	// ParseUint takes a sign and shorter forms, keys have one form.
	if len(s) != digits || strings.Trim(s, "0123456789") != "" {
		return 0, wrong(key)
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, wrong(key)
	}
	return n, nil
}

func wrong(key backend.Key) error {
	return fmt.Errorf("%q: %w", key, ErrKey)
}
