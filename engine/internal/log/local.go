package log

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cairn-backup/cairn/chunk/seal"
)

// The local state is the newest State this machine has seen, sealed: a framed
// object of seal.KindLocal under the meta key, bound to the repository and to
// number 0. Its parts joined are the hash of the config (32 bytes) and the
// body of a checkpoint. It is a hint in every respect.
const localName = "log-state"

// loadLocal returns the local state, or nil if there is none that can be used.
func (l *Log) loadLocal() *State {
	if l.opts.Dir == "" {
		return nil
	}
	object, err := os.ReadFile(filepath.Join(l.opts.Dir, localName))
	if err != nil {
		return nil
	}
	_, parts, err := seal.OpenObject(l.opts.Meta, seal.KindLocal, seal.Binding{Repository: l.opts.Repository}, object)
	if err != nil {
		return nil
	}
	plain := bytes.Join(parts, nil)
	if !bytes.HasPrefix(plain, l.opts.Genesis[:]) {
		return nil
	}
	s, err := unmarshalState(plain[len(Hash{}):])
	if err != nil || l.knownFeatures(s) != nil {
		return nil
	}
	l.saved = s.pos
	return s
}

// saveLocal writes the local state. With a problem it keeps the old one: it is
// what knows that the store is not as it was.
func (l *Log) saveLocal() error {
	if l.opts.Dir == "" || l.opts.ReadOnly || l.Problem() != nil || l.saved == l.Head() && l.saved.N > 0 {
		return nil //nolint:nilerr // a problem of the store is no failure to save
	}
	plain := slices.Clone(l.opts.Genesis[:])
	err := l.View(func(s *State) error {
		body, err := marshalState(s)
		plain = append(plain, body...)
		return err
	})
	if err != nil {
		return err
	}
	parts := slices.Collect(slices.Chunk(plain, checkpointCut))
	_, object, err := seal.Object(l.opts.Meta, seal.Template{Kind: seal.KindLocal}, seal.Binding{Repository: l.opts.Repository}, parts...)
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(l.opts.Dir, localName), object)
}

// listedName is a file whose time is that of the last listing around the head.
const listedName = "log-listed"

// listedLately reports whether this machine has listed the store around the head
// within Options.Relist. It serves economy: what it spares is looked for later.
func (l *Log) listedLately() bool {
	if l.opts.Dir == "" {
		return false
	}
	info, err := os.Stat(filepath.Join(l.opts.Dir, listedName))
	return err == nil && time.Since(info.ModTime()).Abs() < l.opts.Relist
}

func (l *Log) noteListed() {
	if l.opts.Dir != "" && !l.opts.ReadOnly {
		_ = replaceFile(filepath.Join(l.opts.Dir, listedName), nil) // a hint
	}
}

// forgetLocal removes the local state.
func (l *Log) forgetLocal() error {
	if l.opts.Dir == "" {
		return nil
	}
	l.saved = Position{}
	err := os.Remove(filepath.Join(l.opts.Dir, localName))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// replaceFile puts data in the place of the file, whole or not at all. It does
// not sync: what a crash leaves fails to open, and is a hint.
func replaceFile(name string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), localName+"-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
