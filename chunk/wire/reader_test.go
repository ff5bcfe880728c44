package wire_test

import (
	"bytes"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/cairn-backup/cairn/chunk/wire"
)

func TestReaderReadsWhatWasAppended(t *testing.T) {
	when := time.Date(1921, 3, 4, 5, 6, 7, 890, time.FixedZone("", 3600))
	p := wire.AppendUvarint(nil, 0)
	p = wire.AppendUvarint(p, math.MaxUint64)
	p = wire.AppendBytes(p, []byte("bytes"))
	p = wire.AppendText(p, "te\xffxt")
	p = wire.AppendTime(p, when)
	p = wire.AppendUint32(p, 0xdeadbeef)
	p = wire.AppendUint64(p, 0x0123456789abcdef)
	p = append(p, 7, 8, 9)

	r := wire.NewReader(p)
	if got := r.Uvarint(0); got != 0 {
		t.Errorf("Uvarint = %d, want 0", got)
	}
	if got := r.Uvarint(math.MaxUint64); got != math.MaxUint64 {
		t.Errorf("Uvarint = %d, want 2^64-1", got)
	}
	if got := r.Bytes(5); string(got) != "bytes" || cap(got) != 5 {
		t.Errorf("Bytes = %q, capacity %d", got, cap(got))
	}
	if got := r.Text(5); got != "te\xffxt" {
		t.Errorf("Text = %q", got)
	}
	if got := r.Time(); !got.Equal(when) || got.Location() != time.UTC {
		t.Errorf("Time = %v, want %v", got, when)
	}
	if got := r.Uint32(); got != 0xdeadbeef {
		t.Errorf("Uint32 = %x", got)
	}
	if got := r.Uint64(); got != 0x0123456789abcdef {
		t.Errorf("Uint64 = %x", got)
	}
	if got := r.Byte(); got != 7 {
		t.Errorf("Byte = %d", got)
	}
	if r.Len() != 2 || r.Err() != nil {
		t.Errorf("Len = %d, Err = %v", r.Len(), r.Err())
	}
	if got := r.Fixed(2); !bytes.Equal(got, []byte{8, 9}) {
		t.Errorf("Fixed = %v", got)
	}
	if err := r.Done(); err != nil {
		t.Errorf("Done = %v", err)
	}
}

func TestReaderRefuses(t *testing.T) {
	tests := []struct {
		name string
		p    []byte
		read func(r *wire.Reader)
	}{
		{"no uvarint", nil, func(r *wire.Reader) { r.Uvarint(9) }},
		{"uvarint cut off", []byte{0x80}, func(r *wire.Reader) { r.Uvarint(9) }},
		{"uvarint not minimal", []byte{0x81, 0x00}, func(r *wire.Reader) { r.Uvarint(9) }},
		{"zero in two bytes", []byte{0x80, 0x00}, func(r *wire.Reader) { r.Uvarint(9) }},
		{"uvarint above the limit", []byte{10}, func(r *wire.Reader) { r.Uvarint(9) }},
		{"uvarint of 65 bits", bytes.Repeat([]byte{0xff}, 10), func(r *wire.Reader) { r.Uvarint(math.MaxUint64) }},
		{"uvarint of 11 bytes", append(bytes.Repeat([]byte{0x80}, 10), 1), func(r *wire.Reader) { r.Uvarint(math.MaxUint64) }},
		{"bytes above the limit", []byte{2, 1, 1}, func(r *wire.Reader) { r.Bytes(1) }},
		{"bytes cut off", []byte{2, 1}, func(r *wire.Reader) { r.Bytes(10) }},
		{"huge bytes", wire.AppendUvarint(nil, 1<<60), func(r *wire.Reader) { r.Bytes(math.MaxInt) }},
		{"count without room", []byte{2, 0, 0, 0}, func(r *wire.Reader) { r.Count(10, 2) }},
		{"count of nothing", []byte{3, 0}, func(r *wire.Reader) { r.Count(10, 0) }},
		{"fixed cut off", []byte{1}, func(r *wire.Reader) { r.Fixed(2) }},
		{"negative fixed", []byte{1}, func(r *wire.Reader) { r.Fixed(-1) }},
		{"byte", nil, func(r *wire.Reader) { r.Byte() }},
		{"uint32", []byte{1, 2, 3}, func(r *wire.Reader) { r.Uint32() }},
		{"uint64", []byte{1, 2, 3, 4, 5, 6, 7}, func(r *wire.Reader) { r.Uint64() }},
		{"time", make([]byte, 11), func(r *wire.Reader) { r.Time() }},
		{"a second of nanoseconds", wire.AppendUint32(make([]byte, 8), 1e9), func(r *wire.Reader) { r.Time() }},
		{"left over", []byte{1, 2}, func(r *wire.Reader) { r.Byte() }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := wire.NewReader(tt.p)
			tt.read(r)
			err := r.Done()
			if !errors.Is(err, wire.ErrMalformed) {
				t.Fatalf("Done = %v, want ErrMalformed", err)
			}
			if r.Byte() != 0 || r.Fixed(1) != nil || r.Uvarint(5) != 0 || r.Len() != 0 || !r.Time().IsZero() {
				t.Error("reads after an error are not zero")
			}
			r.Fail("something else")
			if again := r.Done(); again.Error() != err.Error() {
				t.Errorf("the error changed from %v to %v", err, again)
			}
		})
	}
}

// FuzzReader runs a script of reads, appends what was read, and compares with
// the bytes: whatever is accepted has no second form.
func FuzzReader(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7}, bytes.Repeat([]byte{3, 0x80, 1}, 30))
	f.Add([]byte{0, 0}, []byte{0x80, 0, 1})
	f.Fuzz(func(t *testing.T, script, p []byte) {
		r := wire.NewReader(p)
		var out []byte
		for _, op := range script {
			next := readOne(r, op, out)
			if r.Err() != nil {
				break
			}
			out = next
		}
		if !bytes.HasPrefix(p, out) {
			t.Errorf("read and appended: %x, was %x", out, p)
		}
		if r.Err() == nil && r.Len() != len(p)-len(out) {
			t.Errorf("%d bytes left after %d of %d", r.Len(), len(out), len(p))
		}
		if err := r.Done(); err != nil && !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("Done = %v", err)
		}
	})
}

func readOne(r *wire.Reader, op byte, out []byte) []byte {
	switch op % 8 {
	case 0:
		return wire.AppendUvarint(out, r.Uvarint(math.MaxUint64))
	case 1:
		return wire.AppendBytes(out, r.Bytes(math.MaxInt))
	case 2:
		return wire.AppendText(out, r.Text(int(op)))
	case 3:
		return append(out, r.Fixed(int(op))...)
	case 4:
		return wire.AppendTime(out, r.Time())
	case 5:
		return wire.AppendUint32(out, r.Uint32())
	case 6:
		return wire.AppendUint64(out, r.Uint64())
	}
	return append(out, r.Byte())
}

func TestReaderDoesNotAllocate(t *testing.T) {
	p := wire.AppendUvarint(wire.AppendBytes(nil, make([]byte, 100)), 1<<40)
	if n := testing.AllocsPerRun(100, func() {
		r := wire.NewReader(p)
		r.Bytes(100)
		r.Uvarint(1 << 41)
		if r.Done() != nil {
			t.Fatal(r.Err())
		}
	}); n > 1 {
		t.Errorf("%v allocations", n)
	}
}
