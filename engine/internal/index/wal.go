package index

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
)

// A write-ahead log of Badger v4:
//
//	key id 8 (zero: not encrypted), random 12, entries, zeros
//
// and an entry:
//
//	meta 1, user meta 1, key length, value length, expiry (varints),
//	key, value, Castagnoli checksum of all that 4, big-endian
//
// The entries of a transaction have bit 6 of meta set, and after them comes
// one with bit 7 set. One goroutine writes the transactions in the order of
// their commits, each whole into one log, and begins a log only when the last
// one is full. So what a kill leaves is a prefix of what was committed: an
// unfinished transaction at the end of the last log, and of that at most one
// entry in part. Any other gap is damage, and what lies behind it must not be
// believed: it could be the mark of a segment whose entries were in the gap.
const (
	logHeader = 20
	bitFinTxn = 1 << 7

	// maxEntry is more than any entry of ours has, in bytes.
	maxEntry = 256
	// maxLog is more than any log has: twice the memtable, in bytes.
	maxLog = 64 << 20
)

// verifyLogs checks the logs, and removes a last one that was not begun, which
// Badger refuses.
func verifyLogs(dir string, logs []logInfo) error {
	for i, l := range logs {
		path := filepath.Join(dir, fmt.Sprintf("%05d.mem", l.number))
		last := i == len(logs)-1
		if l.size == 0 && last {
			return os.Remove(path)
		}
		if l.size > maxLog || i > 0 && l.number != logs[i-1].number+1 {
			return fmt.Errorf("%w: log %d", ErrDamaged, l.number)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if whole, err := checkLog(b); err != nil || !whole && !last {
			return fmt.Errorf("log %d: %w: unfinished, and not the last", l.number, ErrDamaged)
		}
	}
	return nil
}

// checkLog returns an error if the log in b is damaged, and whether it ends
// with a whole transaction.
func checkLog(b []byte) (whole bool, err error) {
	if len(b) < logHeader || binary.BigEndian.Uint64(b) != 0 {
		return false, fmt.Errorf("%w: no header", ErrDamaged)
	}
	b = b[logHeader:]
	whole = true
	for {
		n, meta := cutEntry(b)
		if n == 0 {
			break
		}
		whole = meta&bitFinTxn != 0
		b = b[n:]
	}
	for i, c := range b {
		if c == 0 {
			continue
		}
		if i >= maxEntry {
			return false, fmt.Errorf("%w: a gap", ErrDamaged)
		}
		whole = false
	}
	return whole, nil
}

// cutEntry returns the length of the entry at the start of b, 0 if there is no
// valid one, and its meta byte.
func cutEntry(b []byte) (n int, meta byte) {
	if len(b) < 2 {
		return 0, 0
	}
	n = 2
	var fields [3]uint64 // key length, value length, expiry
	for i := range fields {
		v, w := binary.Uvarint(b[n:])
		if w <= 0 {
			return 0, 0
		}
		fields[i] = v
		n += w
	}
	if fields[0] == 0 || fields[0] > maxEntry || fields[1] > maxEntry {
		return 0, 0
	}
	n += int(fields[0] + fields[1])
	if len(b) < n+4 || binary.BigEndian.Uint32(b[n:]) != crc32.Checksum(b[:n], crcTable()) {
		return 0, 0
	}
	return n + 4, b[0]
}
