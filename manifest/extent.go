package manifest

import (
	"errors"
	"fmt"
	"math"

	"github.com/cairn-backup/cairn/chunk/wire"
)

// An extent is stored as
//
//	uvarint kind | by kind
//	  Data    uvarint length | 32 chunk ID
//	  Hole    uvarint length
//	  Repeat  uvarint length of the chunk | uvarint count | 32 chunk ID
//	  Patch   uvarint first | uvarint count | uvarint length | 32 chunk ID
//
// Offsets are not stored, so that an insertion moves nothing behind it.

const (
	// maxSize bounds the length of a file: offsets in files are int64.
	maxSize = math.MaxInt64

	// maxPatches bounds the patches of one Data extent, which share its page.
	maxPatches = 16

	// minExtent is the least number of bytes that an extent takes.
	minExtent = 2
)

// chunkLength returns the length of the chunk that a Data or Repeat extent names.
func (e Extent) chunkLength() uint64 {
	if e.Kind == Repeat {
		return e.Length / max(e.Count, 1)
	}
	return e.Length
}

// times returns how many times a Data or Repeat extent gives its chunk.
func (e Extent) times() uint64 {
	if e.Kind == Repeat {
		return e.Count
	}
	return 1
}

// covers returns how many bytes e adds to the file's size.
func (e Extent) covers() uint64 {
	if e.Kind == Patch {
		return 0
	}
	return e.Length
}

// append encodes e, which must have passed check.
func (e Extent) append(dst []byte) []byte {
	dst = append(dst, byte(e.Kind))
	switch e.Kind {
	case Hole:
		return wire.AppendUvarint(dst, e.Length)
	case Repeat:
		dst = wire.AppendUvarint(dst, e.chunkLength())
		dst = wire.AppendUvarint(dst, e.Count)
	case Patch:
		dst = wire.AppendUvarint(dst, e.First)
		dst = wire.AppendUvarint(dst, e.Count)
		dst = wire.AppendUvarint(dst, e.Length)
	default:
		dst = wire.AppendUvarint(dst, e.Length)
	}
	return append(dst, e.ID[:]...)
}

// readExtent decodes one extent; what it returns still needs check.
func readExtent(r *wire.Reader) Extent {
	e := Extent{Kind: ExtentKind(r.Byte())}
	switch e.Kind {
	case Data:
		e.Length = r.Uvarint(MaxChunk)
	case Hole:
		e.Length = r.Uvarint(maxSize)
		return e
	case Repeat:
		each := r.Uvarint(MaxChunk)
		e.Count = r.Uvarint(maxSize / max(each, 1))
		e.Length = each * e.Count
	case Patch:
		e.First = r.Uvarint(MaxChunk)
		e.Count = r.Uvarint(MaxChunk)
		e.Length = r.Uvarint(MaxChunk)
	default:
		r.Fail(fmt.Sprintf("extent of unknown kind %d", e.Kind))
		return e
	}
	copy(e.ID[:], r.Fixed(len(e.ID)))
	return e
}

// check reports what is wrong with e by itself.
func (e Extent) check() error {
	var ok bool
	switch e.Kind {
	case Data:
		ok = e.Length >= 1 && e.Length <= MaxChunk && e.Count == 0 && e.First == 0
	case Hole:
		ok = e.Length >= 1 && e.Length <= maxSize && e.Count == 0 && e.First == 0 && e.ID.IsZero()
	case Repeat:
		ok = e.Count >= 2 && e.First == 0 && e.Length%e.Count == 0 && e.Length <= maxSize &&
			e.chunkLength() >= 1 && e.chunkLength() <= MaxChunk
	case Patch:
		ok = e.Count >= 1 && e.Length >= 1 && e.Length <= MaxChunk && e.Length%e.Count == 0 && e.First <= MaxChunk
	default:
		return fmt.Errorf("extent of unknown kind %d", e.Kind)
	}
	switch {
	case !ok:
		return fmt.Errorf("%s extent of %d bytes, count %d, first %d", e.Kind, e.Length, e.Count, e.First)
	case e.Kind != Hole && e.ID.IsZero():
		return fmt.Errorf("%s extent without a chunk", e.Kind)
	}
	return nil
}

// join returns a and b as one extent, if equal neighbours must be stored as
// one: holes, and the same chunk again.
func join(a, b Extent) (Extent, bool) {
	switch {
	case a.Length > maxSize-b.Length:
		return Extent{}, false // refused as too large by whoever adds it up
	case a.Kind == Hole && b.Kind == Hole:
		return Extent{Kind: Hole, Length: a.Length + b.Length}, true
	case a.Kind != Data && a.Kind != Repeat, b.Kind != Data && b.Kind != Repeat:
		return Extent{}, false
	case a.ID != b.ID || a.chunkLength() != b.chunkLength():
		return Extent{}, false
	}
	return Extent{Kind: Repeat, Length: a.Length + b.Length, ID: a.ID, Count: a.times() + b.times()}, true
}

// A run checks extents in their order, one after the other.
type run struct {
	size uint64 // bytes covered so far
	last Extent // the one before; the zero Extent at the start

	base     Extent // the extent that patches replace pages of
	patches  int    // of base
	patchEnd uint64 // bytes of base before the end of its last patch
}

// next takes the extent that follows, or says why it cannot stand there.
func (r *run) next(e Extent) error {
	if err := e.check(); err != nil {
		return err
	}
	if e.Kind == Patch {
		return r.patch(e)
	}
	if _, ok := join(r.last, e); ok {
		return fmt.Errorf("two %s extents that should be one", e.Kind)
	}
	if e.Length > maxSize-r.size {
		return errors.New("content of more than 2^63-1 bytes")
	}
	r.size += e.Length
	r.last, r.base, r.patches, r.patchEnd = e, e, 0, 0
	return nil
}

func (r *run) patch(e Extent) error {
	page := e.Length / e.Count
	switch {
	case r.base.Kind != Data:
		return errors.New("patch that does not follow a data extent")
	case r.patches == maxPatches:
		return fmt.Errorf("more than %d patches of one extent", maxPatches)
	case e.First*page < r.patchEnd: // both factors are at most 2^24
		return errors.New("patches that overlap or are out of order")
	case e.First*page+e.Length > r.base.Length:
		return errors.New("patch beyond the end of its extent")
	}
	r.patches++
	r.patchEnd = e.First*page + e.Length
	r.last = e
	return nil
}

// offset returns where in the file e begins, which next has just taken.
func (r *run) offset(e Extent) uint64 {
	if e.Kind == Patch {
		return r.size - r.base.Length + e.First*(e.Length/e.Count)
	}
	return r.size - e.Length
}

// sizeOf returns how many bytes extents cover, or what is wrong with them.
func sizeOf(extents []Extent) (uint64, error) {
	var r run
	for _, e := range extents {
		if err := r.next(e); err != nil {
			return 0, err
		}
	}
	return r.size, nil
}
