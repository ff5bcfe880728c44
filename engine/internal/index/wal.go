package index

import (
	"bytes"
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
// Commits are numbered one by one, and each key ends with the number, as
// 1<<64-1-n in 8 bytes: so a gap shows even if a whole table or log is missing.
const (
	logHeader = 20
	bitFinTxn = 1 << 7

	// maxEntry is more than any key, value or entry of ours has, in bytes.
	maxEntry = maxList + 64
	// maxLog is more than any log has: twice the memtable, in bytes.
	maxLog = 64 << 20
)

// verifyLogs checks the logs that follow commit number last, and removes a last
// log that was not begun, which Badger refuses.
func verifyLogs(dir string, logs []logInfo, last uint64) error {
	for i, l := range logs {
		path := filepath.Join(dir, fmt.Sprintf("%05d.mem", l.number))
		final := i == len(logs)-1
		if l.size == 0 && final {
			return os.Remove(path)
		}
		if l.size > maxLog {
			return fmt.Errorf("log %d: %w: %d bytes", l.number, ErrDamaged, l.size)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var end int64
		if last, end, err = checkLog(b, last); err != nil {
			return fmt.Errorf("log %d: %w", l.number, err)
		}
		if end == l.size {
			continue
		}
		if !final {
			return fmt.Errorf("log %d: %w: unfinished, and not the last", l.number, ErrDamaged)
		}
		// Badger would cut it there, too, but it makes room for whatever value
		// a header in the rest may announce.
		if err := os.Truncate(path, end); err != nil {
			return err
		}
	}
	return nil
}

// checkLog checks the log in b, which follows commit number last. It returns
// the number of the last whole commit, and where that ends, or len(b) if
// nothing but zeros follows.
func checkLog(b []byte, last uint64) (_ uint64, end int64, err error) {
	if len(b) < logHeader || binary.BigEndian.Uint64(b) != 0 {
		return 0, 0, fmt.Errorf("%w: no header", ErrDamaged)
	}
	at, whole := logHeader, logHeader
	for {
		e, n := cutEntry(b[at:])
		if n == 0 {
			break
		}
		if e.commit > last && e.commit != last+1 {
			return 0, 0, fmt.Errorf("%w: commit %d after %d", ErrDamaged, e.commit, last)
		}
		at += n
		if e.meta&bitFinTxn != 0 {
			last = max(last, e.commit)
			whole = at
		}
	}
	rest := bytes.TrimRight(b[at:], "\x00")
	if len(rest) > maxEntry {
		return 0, 0, fmt.Errorf("%w: a gap", ErrDamaged)
	}
	if len(rest) == 0 && whole == at {
		return last, int64(len(b)), nil
	}
	return last, int64(whole), nil
}

// A logEntry is what matters of an entry.
type logEntry struct {
	meta   byte
	commit uint64
}

// cutEntry returns the entry at the start of b and its length, which is 0 if
// there is no valid one.
func cutEntry(b []byte) (e logEntry, n int) {
	if len(b) < 2 {
		return e, 0
	}
	n = 2
	var fields [3]uint64 // key length, value length, expiry
	for i := range fields {
		v, w := binary.Uvarint(b[n:])
		if w <= 0 {
			return e, 0
		}
		fields[i] = v
		n += w
	}
	if fields[0] < 8 || fields[0] > maxEntry || fields[1] > maxEntry {
		return e, 0
	}
	keyEnd := n + int(fields[0])
	n = keyEnd + int(fields[1])
	if len(b) < n+4 || binary.BigEndian.Uint32(b[n:]) != crc32.Checksum(b[:n], crcTable()) {
		return e, 0
	}
	return logEntry{meta: b[0], commit: ^binary.BigEndian.Uint64(b[keyEnd-8:])}, n + 4
}
