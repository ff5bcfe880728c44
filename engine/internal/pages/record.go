package pages

import (
	"errors"
	"math"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/chunk/wire"
)

// A file of fingerprints is a framed object of seal.KindLocal under the meta key,
// bound to the repository and to number 2. Its parts hold
//
//	the first      uvarint 1, the version | uvarint grain, bytes a page
//	each other     records, whole
//
// with, for each group that is neither a hole nor left out,
//
//	uvarint   groups between that of the record before, or the begin, and this one
//	32 bytes  Key: what the content list says of the group
//	32 bytes  ID of the group's bytes
//	uvarint   number of pages | 12 bytes each
//
// A record counts for a group of which the parent's list says the same, in
// whatever file it is found: so neither another version of the file nor another
// file, put in its place, can say anything wrong.
const (
	version = 1
	number  = 2 // of the binding; log-state has 0, the ledger of the check 1

	cut       = 128 << 10 // bytes of records at which a part ends
	partLimit = 1 << 20   // bytes of a part that a reader accepts
	maxPages  = Group / minGrain
	minGrain  = 512
)

// A Record is what is known of a group.
type Record struct {
	Group  uint64   // its number: offset / Group
	Key    chunk.ID // of what the list says of it, see ListKey
	ID     chunk.ID // of its bytes
	Prints []byte   // of its pages
}

var errRecord = errors.New("no record of fingerprints")

// append encodes r, which comes behind the groups up to next.
func (r *Record) append(dst []byte, next uint64) []byte {
	dst = wire.AppendUvarint(dst, r.Group-next)
	dst = append(dst, r.Key[:]...)
	dst = append(dst, r.ID[:]...)
	dst = wire.AppendUvarint(dst, uint64(len(r.Prints)/printSize))
	return append(dst, r.Prints...)
}

// readRecord decodes the record that comes behind the groups up to next. Prints
// are part of what r reads.
func readRecord(r *wire.Reader, next uint64) (rec Record, err error) {
	step := r.Uvarint(math.MaxInt64)
	copy(rec.Key[:], r.Fixed(len(rec.Key)))
	copy(rec.ID[:], r.Fixed(len(rec.ID)))
	pages := r.Uvarint(maxPages)
	rec.Prints = r.Fixed(int(pages) * printSize) //nolint:gosec // bounded
	if r.Err() != nil || pages == 0 || next > math.MaxInt64-step {
		return rec, errRecord
	}
	rec.Group = next + step
	return rec, nil
}
