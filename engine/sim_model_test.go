package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/chunk/codec"
	"github.com/cairn-backup/cairn/chunk/pack"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/enginetest"
	"github.com/cairn-backup/cairn/engine/internal/index"
	"github.com/cairn-backup/cairn/engine/internal/keys"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/engine/internal/log"
	"github.com/cairn-backup/cairn/engine/internal/store"
	"github.com/cairn-backup/cairn/manifest"
)

// A simRepository is an empty repository, from which every schedule begins.
type simRepository struct {
	objects map[backend.Key][]byte
	set     *keys.Set
	id      keys.RepositoryID
	config  keys.Config
}

// simEmpty is made with a key that is always the same, since chunks and the
// pages of lists are cut and named by it.
var simEmpty = sync1(func() simRepository {
	f := simRepository{set: keys.Derive(keys.Root{1, 2, 3}), id: keys.RepositoryID{4, 5, 6}, objects: make(map[backend.Key][]byte)}
	own, err := engine.OwnSecret(context.Background(), secret)
	if err != nil {
		panic(err)
	}
	name, slot, err := keys.SealSlot(f.set.Root(), f.id, own, "first")
	if err != nil {
		panic(err)
	}
	f.objects[layout.Slot(name)] = slot
	f.config = keys.NewConfig(f.set, simStart.Unix())
	if f.objects[layout.Config], err = f.config.Seal(f.set.Meta, f.id); err != nil {
		panic(err)
	}
	return f
})

// A simModel knows what must hold. It sees every write as it happens, reads the
// log and the packs by itself, and keeps for each visible snapshot the chunks
// that it is made of.
type simModel struct {
	w     *simWorld
	ctx   context.Context //nolint:containedctx // of the schedule; the model is its own
	log   *log.Log
	store *store.Store
	dec   *codec.Decoder
	hash  *chunk.Hasher

	packs    map[pack.ID]*simPack        // by content; there is false once deleted
	segments map[[16]byte]*simSegment    // as above
	chunks   map[chunk.ID][]byte         // everything that was ever stored
	doomed   map[backend.Key]backend.Key // the record whose Doom names it
	durable  map[backend.Key]bool        // put, and someone was told so
	snaps    map[manifest.ID]*simSnap    // visible
	backups  map[string]*simBackup       // by tag
	forgets  map[manifest.ID][]*simForget
	harm     simHarm
	pages    simPages
}

type simPack struct {
	there  bool
	order  int // in which packs were put
	chunks map[chunk.ID]bool
	bad    map[chunk.ID]uint32 // those that are damaged, and their blocks
	table  pack.Table
}

type simSegment struct {
	there bool
	packs map[pack.ID]bool
}

// A simSnap is a visible snapshot.
type simSnap struct {
	info   *log.SnapshotInfo
	backup *simBackup
	chunks []chunk.ID // all that it is made of
	lacks  bool       // some of them, by damage
	paged  []string   // paths of files with patches, with the root
	since  int        // the step at which it became visible, the last time
}

// A simState says how an operation ended.
type simState uint8

const (
	simRuns    simState = iota
	simDone             // it said so
	simFailed           // it said that nothing happened
	simUnknown          // it said that nobody knows
	simCrashed          // it said nothing
)

// A simBackup is one backup: what it read, and how it ended.
type simBackup struct {
	tag       string
	source    string // its name
	tree      simTree
	began     int // the step
	at        time.Time
	state     simState
	err       error
	committed manifest.ID // zero: not yet
	record    backend.Key // by which it was committed
}

// A simForget is one wish to forget snapshots.
type simForget struct {
	state  simState
	policy bool // not by their names
}

func newSimModel(ctx context.Context, w *simWorld) (*simModel, error) {
	m := &simModel{
		w: w, ctx: ctx, packs: make(map[pack.ID]*simPack), segments: make(map[[16]byte]*simSegment),
		chunks: make(map[chunk.ID][]byte), doomed: make(map[backend.Key]backend.Key), durable: make(map[backend.Key]bool), snaps: make(map[manifest.ID]*simSnap),
		backups: make(map[string]*simBackup), forgets: make(map[manifest.ID][]*simForget), harm: newSimHarm(), pages: newSimPages(),
	}
	e, raw := &simEmpty, w.raw()
	var err error
	m.log, err = log.Open(ctx, log.Options{
		Backend: raw, Repository: e.id, Meta: e.set.Meta, Genesis: log.HashOf(e.objects[layout.Config]),
		Keys: log.Keys{Admin: e.config.Admin, Keeper: e.config.Keeper, Writer: e.config.Writer}, ReadOnly: true,
	})
	if err != nil {
		return nil, err
	}
	x, err := index.Open(index.Options{Repository: e.id})
	if err != nil {
		return nil, err
	}
	m.store = store.New(store.Options{
		Backend: raw, Repository: e.id, Keys: e.set, Log: m.log, Index: x, Workers: 1, Logger: slog.New(slog.DiscardHandler),
	})
	m.hash = chunk.NewHasher(e.set.Chunk)
	m.dec, err = codec.NewDecoder()
	return m, err
}

// state returns the State after the newest record.
func (m *simModel) state() (state *log.State) {
	_ = m.log.View(func(st *log.State) error { state = st; return nil }) // nobody else changes it
	return state
}

// afterPut looks at a new object.
func (m *simModel) afterPut(op *simOp) {
	switch {
	case strings.HasPrefix(string(op.key), string(layout.Packs)):
		if err := m.readPack(op.proc, op.key, op.data); err != nil {
			m.w.fail("V8: %s put %s, which is no pack that can be read: %v", op.proc.name, op.key, err)
		}
	case strings.HasPrefix(string(op.key), string(layout.Segments)):
		if id, err := layout.ParseSegment(op.key); err == nil {
			m.segments[id] = &simSegment{there: true}
		}
	case strings.HasPrefix(string(op.key), string(layout.Records)):
		m.afterRecord(op)
	}
}

// readPack opens a pack to its last byte.
func (m *simModel) readPack(by *simProc, key backend.Key, data []byte) error {
	id, err := layout.ParsePack(key)
	if err != nil {
		return err
	}
	h, off, n, err := pack.ReadPlace(data[:min(len(data), pack.HeadSize)])
	if err != nil {
		return err
	}
	e := &simEmpty
	t, err := pack.OpenTable(e.set.Data(h.Generation), e.id, h, data[off:off+n], int64(len(data)))
	if err != nil {
		return err
	}
	p := &simPack{there: true, order: len(m.packs), chunks: make(map[chunk.ID]bool), bad: make(map[chunk.ID]uint32), table: t}
	for _, b := range t.Blocks {
		birth := h
		if b.Birth > 0 {
			birth = t.Births[b.Birth-1]
		}
		o, err := pack.BlockOpener(e.set.Data(birth.Generation), e.id, birth)
		if err != nil {
			return err
		}
		raw, err := pack.OpenBlock(o, m.dec, nil, data[b.Offset:b.Offset+b.Stored], b.Number, 1<<20)
		if err != nil {
			return err
		}
		for _, c := range b.Chunks {
			if m.hash.Sum(raw[:c.Length]) != c.ID {
				return fmt.Errorf("chunk %v has other bytes", c.ID)
			}
			p.chunks[c.ID] = true
			m.storedAgain(by, c.ID)
			if _, ok := m.chunks[c.ID]; !ok {
				m.chunks[c.ID] = bytes.Clone(raw[:c.Length])
			}
			raw = raw[c.Length:]
		}
	}
	m.packs[id] = p
	return nil
}

// afterRecord folds a new record and checks what changed by it.
func (m *simModel) afterRecord(op *simOp) {
	if err := m.log.Refresh(m.ctx); err != nil {
		m.w.fail("R6: the log after %s of %s: %v", op.key, op.proc.name, err)
		return
	}
	for _, ignored := range m.log.Ignored() {
		m.w.fail("R1: %s wrote a record of which an effect does not hold: %v", op.proc.name, ignored)
	}
	st := m.state()
	for d := range st.Doomed() {
		if m.doomed[d.Key] == "" {
			m.doomed[d.Key] = op.key
			m.w.stats["dooms"]++
			m.w.say("doomed: %s", m.w.label(d.Key))
		}
	}
	for _, info := range st.Packs() {
		if !m.durable[layout.Pack(info.ID)] {
			m.w.fail("V2: %s adds pack %v, which is not durable", op.proc.name, info.ID)
		}
	}
	visible := make(map[manifest.ID]bool)
	for info := range st.Snapshots() {
		id := info.Summary.ID
		visible[id] = true
		if s, known := m.snaps[id]; known {
			if !slices.Equal(s.info.Needs, info.Needs) {
				m.w.stats["needs mapped to successors"]++
			}
			s.info = info
			continue
		}
		m.committed(op, info)
	}
	gone := slices.DeleteFunc(slices.Collect(maps.Keys(m.snaps)), func(id manifest.ID) bool { return visible[id] })
	slices.SortFunc(gone, func(a, b manifest.ID) int { return strings.Compare(m.snaps[a].backup.tag, m.snaps[b].backup.tag) })
	for _, id := range gone {
		m.forgotten(id)
	}
	m.check()
}

// committed checks a snapshot that has just become visible.
func (m *simModel) committed(op *simOp, info *log.SnapshotInfo) {
	id := info.Summary.ID
	b := m.backups[strings.Join(info.Summary.Tags, " ")]
	switch {
	case b == nil:
		m.w.fail("V3: %s made a snapshot visible that nobody asked for", op.proc.name)
		return
	case !b.committed.IsZero() && b.committed != id:
		m.w.fail("V3: backup %s made two snapshots visible", b.tag)
		return
	case b.state == simFailed:
		m.w.fail("V3: backup %s failed with %v, and became visible", b.tag, b.err)
		return
	}
	back := !b.committed.IsZero()
	if back {
		m.w.stats["undeleted"]++
	}
	b.committed = id
	if !back {
		b.record = op.key // it is done with that, whoever brings it back later
	}
	s := &simSnap{info: info, backup: b, since: m.w.step}
	if err := m.readSnapshot(s); err != nil {
		m.w.fail("V1: backup %s, just committed: %v", b.tag, err)
		return
	}
	m.snaps[id] = s
	m.bornHurt(s, back)
	m.w.stats["commits"]++
	m.w.say("visible: %s, needs %v", b.tag, info.Needs)
}

// simGetter reads from everything that was ever stored.
type simGetter struct {
	m    *simModel
	seen map[chunk.ID]bool
}

// Chunk implements manifest.Getter.
func (g simGetter) Chunk(_ context.Context, id chunk.ID) ([]byte, error) {
	g.seen[id] = true
	if data, ok := g.m.chunks[id]; ok {
		return data, nil
	}
	return nil, fmt.Errorf("chunk %v was never stored", id)
}

// readSnapshot walks a snapshot, compares it with what its backup read, and
// lists its chunks.
func (m *simModel) readSnapshot(s *simSnap) error {
	body, err := simBody(s.info)
	if err != nil {
		return err
	}
	g := simGetter{m: m, seen: make(map[chunk.ID]bool)}
	out := &simTarget{files: make(map[string][]byte)}
	err = manifest.Walk(m.ctx, g, body.Tree, func(at string, n manifest.Node) error {
		if n.Kind != manifest.File {
			return nil
		}
		data, err := m.readFile(g, s, at, n.Content)
		if err != nil {
			return err
		}
		_, at, _ = strings.Cut(at, "/") // without the root
		out.files[at] = data
		return nil
	})
	if err != nil {
		return err
	}
	for id := range g.seen {
		s.chunks = append(s.chunks, id)
	}
	return out.compare(s.backup.tree)
}

// forgotten checks that someone wanted a snapshot to go.
func (m *simModel) forgotten(id manifest.ID) {
	s := m.snaps[id]
	delete(m.snaps, id)
	m.w.stats["forgotten"]++
	m.w.say("forgotten: %s", s.backup.tag)
	wishes := slices.DeleteFunc(slices.Clone(m.forgets[id]), func(f *simForget) bool { return f.state == simFailed })
	if len(wishes) > 0 {
		m.keptNewest(s, wishes)
		return
	}
	m.w.fail("V3: snapshot %s is gone, and nobody who wanted that has not said that it failed", s.backup.tag)
}

// keptNewest checks V18: policies that keep at least the newest snapshot of a
// data set did so.
func (m *simModel) keptNewest(s *simSnap, wishes []*simForget) {
	if slices.ContainsFunc(wishes, func(f *simForget) bool { return !f.policy }) {
		return
	}
	for _, other := range m.snaps {
		if other.backup.source == s.backup.source && other.info.Summary.Start.Compare(s.info.Summary.Start) >= 0 {
			return
		}
	}
	m.w.fail("V18: a policy forgets %s, and nothing as new is left", s.backup.tag)
}

// beforeDelete checks V4.
func (m *simModel) beforeDelete(op *simOp) {
	if strings.HasPrefix(string(op.key), string(layout.Checkpoints)) {
		return // hints
	}
	switch record := m.doomed[op.key]; {
	case record == "":
		m.w.fail("V4: %s deletes %s, which no record dooms", op.proc.name, op.key)
	case !m.durable[record]:
		m.w.fail("V4: %s deletes %s, and the record that dooms it may be lost still", op.proc.name, op.key)
	}
}

func (m *simModel) afterDelete(op *simOp) {
	m.w.stats["deletes"]++
	if id, err := layout.ParsePack(op.key); err == nil && m.packs[id] != nil {
		m.packs[id].there = false
		m.collected(m.packs[id])
	}
	if id, err := layout.ParseSegment(op.key); err == nil && m.segments[id] != nil {
		m.segments[id].there = false
	}
	m.check()
}

// check checks V1 and V14 of every visible snapshot: each chunk is in a pack
// that it needs, that is live, that is there, and that an index segment lists.
func (m *simModel) check() {
	if m.w.failure != nil {
		return
	}
	st := m.state()
	listed := make(map[pack.ID]bool)
	for seg := range st.Segments() {
		s, err := m.segment(seg)
		if err != nil {
			m.w.fail("V14: %v", err)
			return
		}
		for id := range s.packs {
			listed[id] = true
		}
	}
	m.w.stats["checks"]++
	good := m.reviseHarm(st, listed)
	for _, s := range m.snaps {
		held, lacks := make(map[chunk.ID]bool), false
		for n := range s.info.Needs.All() {
			info, live := st.Pack(n)
			p := m.packs[info.ID]
			if !live || p == nil || !p.there && len(p.bad) == 0 {
				m.w.fail("V1: snapshot %s needs pack %d, which is live %v and in the store %v", s.backup.tag, n, live, p != nil && p.there)
				return
			}
			if !listed[info.ID] {
				m.w.fail("V14: no index segment lists pack %d, which snapshot %s needs", n, s.backup.tag)
				return
			}
			for id := range p.chunks {
				held[id] = held[id] || p.good(id)
			}
		}
		for _, id := range s.chunks {
			at, known := held[id]
			switch {
			case at || known && good[id]: // by its name
			case !known:
				m.w.fail("V1: chunk %v of snapshot %s is in none of the packs %v that it needs", id.Short(), s.backup.tag, s.info.Needs)
				return
			case !m.harm.hurt[id]:
				m.w.fail("V1: chunk %v of snapshot %s was damaged and mended, and is lost again", id.Short(), s.backup.tag)
				return
			default:
				lacks = true
			}
		}
		m.lacks(s, lacks)
	}
}

// segment returns what a live segment lists.
func (m *simModel) segment(info log.SegmentInfo) (*simSegment, error) {
	s := m.segments[info.ID]
	if s == nil || !s.there {
		return nil, fmt.Errorf("index segment %x is live and not in the store", info.ID[:4])
	}
	if s.packs != nil {
		return s, nil
	}
	tables, err := m.store.ReadSegment(m.ctx, info)
	if err != nil {
		return nil, err
	}
	s.packs = make(map[pack.ID]bool)
	for _, t := range tables {
		if p := m.packs[t.Pack]; p != nil && !bytes.Equal(t.Table.Append(nil), p.table.Append(nil)) {
			return nil, fmt.Errorf("index segment %x says of pack %v what its footer does not", info.ID[:4], t.Pack)
		}
		s.packs[t.Pack] = true
	}
	return s, nil
}

// begin notes a backup that starts.
func (m *simModel) begin(tag, source string, tree simTree) *simBackup {
	b := &simBackup{tag: tag, source: source, tree: tree, began: m.w.step, at: time.Now()}
	m.backups[tag] = b
	return b
}

// apart returns a time for a backup that begins in the same moment as another,
// else none. Snapshots of one time are in the order of their IDs, which are
// drawn at random, and what a policy keeps of them would be, too.
func (m *simModel) apart(b *simBackup) time.Time {
	for _, other := range m.backups {
		if other != b && other.at.Equal(b.at) {
			return b.at.Add(time.Duration(1 + inode(b.tag)%1e6)) //nolint:gosec // below a million
		}
	}
	return time.Time{}
}

// ended says how an operation of a process ended that returned err.
func ended(p *simProc, err error) simState {
	switch {
	case p.isDead():
		return simCrashed
	case err == nil:
		return simDone
	case errors.Is(err, engine.ErrUnknownOutcome):
		return simUnknown
	}
	return simFailed
}

// backedUp checks what a backup reported.
func (m *simModel) backedUp(p *simProc, b *simBackup, report engine.BackupReport, err error) {
	b.state, b.err = ended(p, err), err
	switch b.state {
	case simDone:
		if b.committed != report.Snapshot.ID {
			m.w.fail("V2: backup %s is done, and its snapshot was never visible", b.tag)
		} else if !m.durable[b.record] {
			m.w.fail("V2: backup %s is done, and its record may be lost still", b.tag)
		}
		if report.Resumed {
			m.w.stats["resumes"]++
		}
	case simFailed:
		if !b.committed.IsZero() {
			m.w.fail("V3: backup %s = %v, and its snapshot is visible", b.tag, err)
		}
		if errors.Is(err, engine.ErrCorrupt) || errors.Is(err, engine.ErrLogHole) || errors.Is(err, engine.ErrLogDamaged) || errors.Is(err, engine.ErrRolledBack) {
			m.w.fail("backup %s = %v, in a store without damage", b.tag, err)
		}
	case simUnknown:
		m.w.stats["unknown outcomes"]++
	case simRuns, simCrashed: // it says nothing
	}
}

// final checks the store as somebody finds it who comes later.
func (m *simModel) final(ctx context.Context) {
	r, err := engine.Open(ctx, m.w.raw(), secret, simOptions)
	if err != nil {
		m.w.fail("Open in the end: %v", err)
		return
	}
	defer r.Close()
	if m.harm.events > 0 {
		if err := m.mend(ctx, r); err != nil {
			m.w.fail("mending in the end: %v", err)
			return
		}
	}
	n := 0
	for snap, err := range r.Snapshots(ctx, manifest.Filter{}) {
		s := m.snaps[snap.ID]
		if err == nil && slices.Equal(snap.Tags, []string{"mend"}) {
			continue
		}
		if err != nil || s == nil {
			m.w.fail("V3: in the end %s is visible: %v", snap.ID, err)
			return
		}
		n++
		var out simTarget
		if _, err := r.Restore(ctx, snap.ID, &out, engine.RestoreOptions{}); err != nil {
			m.w.fail("V1: restore of %s in the end: %v", s.backup.tag, err)
			return
		}
		if err := out.compare(s.backup.tree); err != nil {
			m.w.fail("V1: restore of %s in the end: %v", s.backup.tag, err)
		}
	}
	if n != len(m.snaps) {
		m.w.fail("V2: %d snapshots are visible in the end, of %d", n, len(m.snaps))
	}
	if err := enginetest.Whole(ctx, r); err != nil {
		m.w.fail("check in the end: %v", err)
	}
}

// simBody opens the sealed part of a snapshot.
func simBody(info *log.SnapshotInfo) (manifest.Snapshot, error) {
	body, err := simOpenSealed(info.Body)
	if err != nil {
		return manifest.Snapshot{}, err
	}
	return manifest.DecodeBody(info.Summary, body)
}
