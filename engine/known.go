package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/chunk/wire"
	"github.com/cairn-backup/cairn/engine/internal/keys"
)

// What opens a repository, its config and a key slot, is kept in the repository's
// cache directory as it lies in the store, so that an Open need not ask for it:
// three requests of six. It is found again by the name of the store, and used
// only if the log that it leads to is the one in the store, by its last record.
//
// A slot that was removed goes on to open here for as long as it is kept:
// Options.CacheDir says how long that is.
type known struct {
	Saved  int64    `cbor:"1,keyasint"` // Unix seconds
	Config []byte   `cbor:"2,keyasint"`
	Slots  [][]byte `cbor:"3,keyasint"` // those that a secret has opened here
}

const (
	// keepKnown is how long the slots are believed in: a day, after which the key
	// set is read again.
	keepKnown = 24 * time.Hour
	// maxKnown bounds the file, in bytes, and maxKnownSlots what is in it.
	maxKnown      = 8 << 20
	maxKnownSlots = 8
)

// knownName returns the name of the file in a repository's cache directory, or
// "" if the store has no name.
func knownName(b backend.Backend) string {
	name := backend.Name(b)
	if name == "" {
		return ""
	}
	sum := sha256.Sum256([]byte("cairn v1 store " + name))
	return "known-" + hex.EncodeToString(sum[:16])
}

// loadKnown returns what is known of the repository at b, or nil.
func (r *Repository) loadKnown() *known {
	name := knownName(r.meter)
	if name == "" || r.opts.CacheDir == "" {
		return nil
	}
	found, err := filepath.Glob(filepath.Join(escapeGlob(r.opts.CacheDir), "*", name))
	if err != nil || len(found) != 1 { // two: a repository was made anew there
		return nil
	}
	info, err := os.Stat(found[0])
	if err != nil || info.Size() > maxKnown {
		return nil
	}
	data, err := os.ReadFile(found[0])
	if err != nil {
		return nil
	}
	k := new(known)
	if wire.Unmarshal(data, k) != nil || time.Since(time.Unix(k.Saved, 0)).Abs() > keepKnown {
		return nil
	}
	return k
}

// escapeGlob makes a path a pattern for itself.
func escapeGlob(path string) string {
	var out []byte
	for i := range len(path) {
		switch c := path[i]; c {
		case '*', '?', '[':
			out = append(out, '[', c, ']')
		default:
			out = append(out, c)
		}
	}
	return string(out)
}

// saveKnown keeps what opened the repository. It is a hint: that it cannot be
// kept costs requests.
func (r *Repository) saveKnown(config, slot []byte) {
	dir, err := r.cacheDir()
	name := knownName(r.meter)
	if err != nil || dir == "" || name == "" || r.opts.ReadOnly {
		return
	}
	k := known{Saved: time.Now().Unix(), Config: config, Slots: [][]byte{slot}}
	if old := r.loadKnown(); old != nil && string(old.Config) == string(config) {
		k.Saved = min(k.Saved, old.Saved) // else slots would outlive their day together with newer ones
		for _, s := range old.Slots {
			if string(s) != string(slot) && len(k.Slots) < maxKnownSlots {
				k.Slots = append(k.Slots, s)
			}
		}
	}
	r.forgetKnown() // also one that an older repository at this place left
	data, err := wire.Marshal(k)
	if err != nil {
		return
	}
	f, err := os.CreateTemp(dir, name+"-*") // mode 0600
	if err != nil {
		return
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, name))
	}
	if err != nil {
		_ = os.Remove(f.Name()) // as above
	}
}

// forgetKnown makes the next Open read the store.
func (r *Repository) forgetKnown() {
	name := knownName(r.meter)
	if name == "" || r.opts.CacheDir == "" || r.opts.ReadOnly {
		return
	}
	found, _ := filepath.Glob(filepath.Join(escapeGlob(r.opts.CacheDir), "*", name)) // the pattern is good
	for _, path := range found {
		_ = os.Remove(path) // a hint
	}
}

// openKnown opens the repository by what is known of it. It reports false if the
// store has to be asked after all.
func (r *Repository) openKnown(ctx context.Context, secret keys.Secret) (bool, error) {
	k := r.loadKnown()
	if k == nil {
		return false, nil
	}
	id, err := keys.ConfigID(k.Config)
	if err != nil {
		return false, nil //nolint:nilerr // a cache that is damaged is no cache
	}
	for _, slot := range k.Slots {
		root, err := openSlot(slot, id, secret)
		if err != nil {
			continue
		}
		r.id = id
		if err := r.unlockWith(root, k.Config); err != nil {
			return false, nil //nolint:nilerr // as above
		}
		err = r.openLog(ctx, k.Config, nil)
		if err != nil {
			return false, err
		}
		if r.log.Warm() {
			return true, nil
		}
		// Nothing shows that this is the repository: the log may be another's.
		err = r.log.Close()
		r.log = nil
		return false, err
	}
	return false, nil
}
