package index

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// one returns the first file of a sample whose name ends in suffix.
func one(t testing.TB, s sample, suffix string) file {
	t.Helper()
	for _, f := range s.files {
		if strings.HasSuffix(f.name, suffix) {
			return f
		}
	}
	t.Fatalf("no %s in sample %s", suffix, s.name)
	return file{}
}

// A table that passes has the checksums right, whatever the bytes are: that is
// all that Badger's readers need.
func FuzzCheckTable(f *testing.F) {
	table := one(f, samples(f)[0], ".sst").data
	f.Add(table)
	f.Add(table[len(table)/2:])
	f.Add([]byte{})
	f.Add(make([]byte, 8))
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := guarded(func() error { _, err := checkTable(b); return err }); err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("checkTable = %v, want ErrDamaged", err)
		}
	})
}

func FuzzCheckLog(f *testing.F) {
	log := one(f, samples(f)[1], ".mem").data
	f.Add(log, uint64(1))
	f.Add(log[:500], uint64(1<<60))
	f.Add(make([]byte, 30), uint64(0))
	f.Fuzz(func(t *testing.T, b []byte, last uint64) {
		if n, end, err := checkLog(b, last); err == nil && (n < last || end < logHeader || end > int64(len(b))) {
			t.Errorf("checkLog(last=%d) = %d, %d", last, n, end)
		} else if err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("checkLog = %v, want ErrDamaged", err)
		}
	})
}

func FuzzPlace(f *testing.F) {
	sums := newSummer([16]byte{1})
	f.Add(sums.appendChunk(nil, id(1), place(1)))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, ok := sums.place(id(1), b); ok && string(sums.appendChunk(nil, id(1), p)) != string(b) {
			t.Errorf("place(%x) = %+v, which encodes to other bytes", b, p)
		}
		sums.readTag(b)
		sums.isSegment(segment(1), b)
		if len(b) >= placeSize {
			if p := readPlace(b); p.Pack >= maxPack {
				t.Errorf("readPlace(%x) = pack %d", b, p.Pack)
			}
		}
	})
}

func TestPlaceEncoding(t *testing.T) {
	sums := newSummer([16]byte{1})
	for n := range 1000 {
		value := sums.appendChunk([]byte("before"), id(n), place(n))[6:]
		if len(value) != valueSize {
			t.Fatalf("%d bytes, want %d", len(value), valueSize)
		}
		if p, ok := sums.place(id(n), value); p != place(n) || !ok {
			t.Fatalf("place = %+v, %v, want %+v", p, ok, place(n))
		}
		for bit := range len(value) * 8 {
			value[bit/8] ^= 1 << (bit % 8)
			if _, ok := sums.place(id(n), value); ok {
				t.Fatalf("bit %d flipped, and still valid", bit)
			}
			value[bit/8] ^= 1 << (bit % 8)
		}
	}
}

// Every bit of a table is under some checksum: a flip in any of its last bytes
// and in every thousandth of the others is found. Skimming finds those that
// would end the process at Open.
func TestEveryBitOfATable(t *testing.T) {
	table := one(t, samples(t)[0], ".sst")
	path := filepath.Join(t.TempDir(), table.name)
	check := func(want error, what string, f func(*tableVerifier) error) {
		t.Helper()
		if err := f(new(tableVerifier)); !errors.Is(err, want) {
			t.Fatalf("%s = %v, want %v", what, err, want)
		}
	}
	verify := func(v *tableVerifier) error { return v.verify(path, table.size) }
	skim := func(v *tableVerifier) error { return v.skim(path, table.size) }
	if err := os.WriteFile(path, table.data, 0o600); err != nil {
		t.Fatal(err)
	}
	check(nil, "verify", verify)
	check(nil, "skim", skim)

	_, start, err := checkIndex(table.data)
	if err != nil {
		t.Fatal(err)
	}
	bits := len(table.data) * 8
	for bit := 0; bit < bits; bit++ {
		table.data[bit/8] ^= 1 << (bit % 8)
		if err := guarded(func() error { _, err := checkTable(table.data); return err }); !errors.Is(err, ErrDamaged) {
			t.Fatalf("bit %d of %d flipped: checkTable = %v, want ErrDamaged", bit, bits, err)
		}
		if int64(bit/8) >= start {
			if err := os.WriteFile(path, table.data, 0o600); err != nil {
				t.Fatal(err)
			}
			check(ErrDamaged, "skim", func(v *tableVerifier) error { return guarded(func() error { return skim(v) }) })
		}
		table.data[bit/8] ^= 1 << (bit % 8)
		if bit < bits-200 {
			bit = min(bit+997, bits-200)
		}
	}
}

// A gap in the logs is found, the ordinary ends of a log are not mistaken for
// one.
func TestCheckLog(t *testing.T) {
	s := samples(t)[1]
	log := one(t, s, ".mem")
	var v tableVerifier
	dir := t.TempDir()
	write(t, dir, s.files...)
	for _, f := range s.files {
		if strings.HasSuffix(f.name, ".sst") {
			if err := v.verify(filepath.Join(onlyGen(t, dir), f.name), f.size); err != nil {
				t.Fatal(err)
			}
		}
	}
	first := v.last
	full, end, err := checkLog(log.data, first)
	if err != nil || end != int64(len(log.data)) || full <= first {
		t.Fatalf("checkLog = %d, %d, %v, want all %d bytes", full, end, err, len(log.data))
	}
	// A kill cuts the log anywhere; behind the cut are zeros.
	for cut := logHeader; cut < len(log.data); cut += 331 {
		b := append(append([]byte{}, log.data[:cut]...), make([]byte, 2000)...)
		last, end, err := checkLog(b, first)
		if err != nil || last >= full || end > int64(cut) && end != int64(len(b)) {
			t.Fatalf("cut at %d: checkLog = %d, %d, %v", cut, last, end, err)
		}
		if again, _, err := checkLog(b[:end], first); again != last || err != nil {
			t.Fatalf("cut at %d: checkLog of what is left = %d, %v, want %d", cut, again, err, last)
		}
	}
	for name, b := range map[string][]byte{
		"no header": log.data[:10],
		"encrypted": append([]byte{1}, log.data[1:]...),
		"hole":      append(append(append([]byte{}, log.data[:5000]...), make([]byte, 1000)...), log.data[6000:]...),
		"cut out":   append(append([]byte{}, log.data[:logHeader]...), log.data[secondCommit(t, log.data):]...),
	} {
		if _, _, err := checkLog(b, first); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: checkLog = %v, want ErrDamaged", name, err)
		}
	}
	if _, _, err := checkLog(log.data, first-1); !errors.Is(err, ErrDamaged) {
		t.Errorf("a missing table: checkLog = %v, want ErrDamaged", err)
	}
}

// secondCommit returns where the second transaction of a log begins.
func secondCommit(t *testing.T, b []byte) int {
	t.Helper()
	for at := logHeader; ; {
		e, n := cutEntry(b[at:])
		if n == 0 {
			t.Fatal("one transaction")
		}
		at += n
		if e.meta&bitFinTxn != 0 {
			return at
		}
	}
}

// A log that announces a gigabyte must not reach Badger, which makes room for
// it.
func TestCheckLogHugeValue(t *testing.T) {
	b := make([]byte, logHeader+2*maxEntry)
	b[logHeader] = 1 << 6
	n := logHeader + 2
	n += binary.PutUvarint(b[n:], 25)
	n += binary.PutUvarint(b[n:], 1<<31)
	b[n+maxEntry+100] = 1
	if _, _, err := checkLog(b, 0); !errors.Is(err, ErrDamaged) {
		t.Errorf("checkLog = %v, want ErrDamaged", err)
	}
}
