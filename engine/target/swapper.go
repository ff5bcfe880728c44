package target

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
)

// noteTemp is added to a note's name while it is written.
const noteTemp = ".tmp"

// companions are the files that belong to a SQLite database of that name. An
// old one beside a new database would be taken for a part of it.
var companions = [...]string{"-journal", "-wal", "-shm"}

// A swapNote tells Recover what an exchange was about to do. Inode numbers, and
// not device numbers, which may change with a restart, say what is where: all
// of it is on one file system.
type swapNote struct {
	Version int        `json:"version"`        // 1
	About   string     `json:"about"`          // for whoever finds it
	Swap    *swapPair  `json:"swap,omitempty"` // one atomic exchange
	Moves   []swapMove `json:"moves,omitempty"`
	// KeepNone: the old target is removed in the end.
	KeepNone bool `json:"keep_none,omitempty"`
	// Record is SwapTarget.Record.
	Record string `json:"record,omitempty"`
	// Done: all is where it should be, what remains is to tidy up.
	Done bool `json:"done,omitempty"`
}

// A swapPair is two names that are exchanged. Paths are raw bytes, relative to
// the directory of the note.
type swapPair struct {
	Target []byte `json:"target"`
	Staged []byte `json:"staged"`
	Old    uint64 `json:"old"` // inode at Target
	New    uint64 `json:"new"` // inode at Staged
}

// A swapMove is a rename to a name that is free.
type swapMove struct {
	From  []byte `json:"from"`
	To    []byte `json:"to"`
	Inode uint64 `json:"inode"`
}

// A swapper exchanges one target.
//
// The order of steps is what makes every crash harmless:
//
//  1. the staged tree is durable
//  2. the note is durable: until here nothing has happened
//  3. the exchange: one call, or moves, each of which can be undone
//  4. the exchange is durable
//  5. the note says Done, durably: from here on it is not undone
//  6. the old tree gets its place, which frees that of the one before
//  7. the note is removed, or becomes the record of the last exchange
//
// Between 2 and 5 the inodes tell how far it came. What is moved out goes before
// what is moved in, so a half-made exchange is undone in reverse, each rename to
// a name that must be free; if one is not, someone else has made something
// there, and no step is taken.
type swapper struct {
	at   swapPlace
	disk disk
}

// run exchanges. After an error everything is as before, unless the note is
// still there.
func (x *swapper) run(staged string, t *SwapTarget) error {
	note, err := x.plan(staged, t)
	if err != nil {
		return err
	}
	if err := x.writeNote(note); err != nil {
		return errors.Join(err, x.dropNote())
	}
	err = x.act(note)
	if note.Swap != nil && errors.Is(err, errors.ErrUnsupported) {
		var moves *swapNote
		if moves, err = x.planMoves(staged, t); err == nil {
			note = moves
			err = x.writeNote(note)
		}
		if err == nil {
			err = x.act(note)
		}
	}
	if err == nil {
		done := *note
		done.Done = true
		err = x.writeNote(&done)
	}
	if err != nil {
		if errUndo := x.resolve(note, undo); errUndo != nil {
			return errors.Join(err, errUndo)
		}
		return err
	}
	// The new tree is there for good. What is left to do the next Recover does
	// as well, so a failure here is none of the restore.
	_ = x.finish(note)
	return nil
}

// plan returns what is to be done, with the inodes as they are now: one
// exchange of two names, where there is nothing else to move.
func (x *swapper) plan(staged string, t *SwapTarget) (*swapNote, error) {
	note, err := x.planMoves(staged, t)
	if err != nil || x.at.mount {
		return note, err
	}
	if m := note.Moves; len(m) == 2 && bytes.Equal(m[0].From, x.rel(x.at.path)) {
		note.Swap = &swapPair{Target: m[0].From, Staged: m[1].From, Old: m[0].Inode, New: m[1].Inode}
		note.Moves = nil
	}
	return note, nil
}

// planMoves is plan for where names cannot be exchanged.
func (x *swapper) planMoves(staged string, t *SwapTarget) (*swapNote, error) {
	note := &swapNote{
		Version: 1, KeepNone: t.KeepNone, Record: t.Record,
		About: "An exchange of " + x.at.base + " was interrupted. The application that restores finishes or undoes it: cairn swap --recover.",
	}
	if x.at.mount {
		return note, x.planChildren(note)
	}
	var aside []string
	old, err := x.inode(x.at.path)
	if err != nil {
		return nil, err
	}
	single := staged != x.at.stage
	if single {
		for _, c := range companions {
			ino, err := x.inode(x.at.path + c)
			if err != nil {
				return nil, err
			}
			if ino != 0 {
				aside = append(aside, x.at.path+c)
			}
		}
	}
	// What goes aside goes after the target itself and comes back before it:
	// an application must not meet its database without its log.
	if old != 0 {
		aside = append([]string{x.at.path}, aside...)
	}
	for _, p := range aside {
		to := x.at.was
		if single {
			to = filepath.Join(x.at.was, filepath.Base(p))
		}
		if err := x.addMove(note, p, to); err != nil {
			return nil, err
		}
	}
	return note, x.addMove(note, staged, x.at.path)
}

// planChildren plans the exchange of what is in a mount point.
func (x *swapper) planChildren(note *swapNote) error {
	for _, m := range []struct{ from, to string }{{x.at.dir, x.at.was}, {x.at.stage, x.at.dir}} {
		names, err := x.disk.list(m.from)
		if err != nil {
			return err
		}
		for _, name := range names {
			if m.from == x.at.dir && x.at.own(name) {
				continue
			}
			if m.to == x.at.dir && x.at.own(name) {
				return fmt.Errorf("%w: the snapshot holds %q, which has a meaning in a mount point", ErrNotSwappable, name)
			}
			if err := x.addMove(note, filepath.Join(m.from, name), filepath.Join(m.to, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (x *swapper) addMove(note *swapNote, from, to string) error {
	ino, err := x.inode(from)
	if err == nil && ino == 0 {
		err = &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
	}
	note.Moves = append(note.Moves, swapMove{From: x.rel(from), To: x.rel(to), Inode: ino})
	return err
}

// inode returns the inode at path; 0 if nothing is there.
func (x *swapper) inode(path string) (uint64, error) {
	fi, err := x.disk.lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return inodeNumber(path, fi)
}

func (x *swapper) rel(path string) []byte {
	rel, err := filepath.Rel(x.at.dir, path)
	if err != nil {
		panic("target: a path beside the target has another root") // both are made of at.dir
	}
	return []byte(rel)
}

func (x *swapper) abs(rel []byte) string { return filepath.Join(x.at.dir, string(rel)) }

// act makes the exchange and makes it durable.
func (x *swapper) act(note *swapNote) error {
	if note.Swap != nil {
		if err := x.disk.swap(x.abs(note.Swap.Target), x.abs(note.Swap.Staged)); err != nil {
			return err
		}
		return x.sync(note)
	}
	if x.needsWas(note) {
		if err := x.disk.mkdir(x.at.was); err != nil {
			return err
		}
	}
	for _, m := range note.Moves {
		if err := x.disk.move(x.abs(m.From), x.abs(m.To)); err != nil {
			return err
		}
	}
	return x.sync(note)
}

// needsWas reports whether things are moved into the directory at.was, rather
// than to its name.
func (x *swapper) needsWas(note *swapNote) bool {
	return slices.ContainsFunc(note.Moves, func(m swapMove) bool { return filepath.Dir(x.abs(m.To)) == x.at.was })
}

// sync makes renames durable.
func (x *swapper) sync(note *swapNote) error {
	dirs := []string{x.at.dir}
	if note.Swap != nil {
		dirs = append(dirs, filepath.Dir(x.abs(note.Swap.Staged)))
	}
	for _, m := range note.Moves {
		dirs = append(dirs, filepath.Dir(x.abs(m.From)), filepath.Dir(x.abs(m.To)))
	}
	slices.Sort(dirs)
	for _, dir := range slices.Compact(dirs) {
		if _, err := x.disk.lstat(dir); errors.Is(err, fs.ErrNotExist) {
			continue // it was undone, or has been tidied up
		}
		if err := x.disk.syncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

func (x *swapper) writeNote(note *swapNote) error {
	data, err := json.MarshalIndent(note, "", "\t")
	if err != nil {
		return err
	}
	temp := x.at.note + noteTemp
	if err := x.disk.write(temp, append(data, '\n')); err != nil {
		return err
	}
	if err := x.disk.rename(temp, x.at.note); err != nil {
		return err
	}
	return x.disk.syncDir(x.at.dir)
}

func (x *swapper) dropNote() error {
	return errors.Join(x.disk.remove(x.at.note+noteTemp), x.disk.remove(x.at.note), x.disk.syncDir(x.at.dir))
}

// finish tidies up after an exchange. It can be done again.
func (x *swapper) finish(note *swapNote) error {
	leaving := x.at.was
	if note.Swap != nil {
		leaving = x.at.stage
	}
	if x.at.mount {
		if _, err := x.disk.lstat(x.at.stage); err == nil {
			if err := x.disk.copyMeta(x.at.stage, x.at.dir); err != nil {
				return err
			}
		}
	}
	switch _, err := x.disk.lstat(leaving); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case note.KeepNone:
		if err := x.disk.removeAll(leaving); err != nil {
			return err
		}
	default:
		if err := x.disk.removeAll(x.at.old); err != nil {
			return err
		}
		if err := x.disk.rename(leaving, x.at.old); err != nil {
			return err
		}
	}
	if err := x.disk.removeAll(x.at.stage); err != nil {
		return err
	}
	// The note goes last, and not before the rest is durable.
	if err := x.disk.syncDir(x.at.dir); err != nil {
		return err
	}
	return x.keepRecord(note)
}

// keepRecord ends a note whose exchange is done. In one step it is no note any
// more and the record of the last exchange: nobody sees neither.
func (x *swapper) keepRecord(note *swapNote) error {
	if note.Record == "" {
		if err := x.disk.remove(x.at.last); err != nil { // what it says is no longer the last
			return err
		}
		return x.dropNote()
	}
	if err := errors.Join(x.disk.remove(x.at.note+noteTemp), x.disk.rename(x.at.note, x.at.last)); err != nil {
		return err
	}
	return x.disk.syncDir(x.at.dir)
}
