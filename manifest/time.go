package manifest

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A Time is a moment in UTC with nanoseconds: Unix seconds, which may be
// negative, and 0 to 999,999,999 nanoseconds after that second. It covers all
// that a filesystem can record, before 1678 and after 2262 as well. The zero
// Time is the start of 1970, and stands for "unknown" where a field says so.
type Time struct {
	Sec  int64
	Nsec uint32
}

// TimeOf converts t, exactly.
func TimeOf(t time.Time) Time {
	return Time{Sec: t.Unix(), Nsec: uint32(t.Nanosecond())} //nolint:gosec // 0 to 999,999,999
}

// Time converts t to a time.Time in UTC. Beyond the years that time.Time can
// hold, some 292 billion, the result is not defined.
func (t Time) Time() time.Time { return time.Unix(t.Sec, int64(t.Nsec)).UTC() }

// Compare returns -1, 0 or +1 as t is before, the same as or after u.
func (t Time) Compare(u Time) int {
	return cmp.Or(cmp.Compare(t.Sec, u.Sec), cmp.Compare(t.Nsec, u.Nsec))
}

// IsZero reports whether t is the zero Time.
func (t Time) IsZero() bool { return t == Time{} }

// valid reports whether the nanoseconds are less than a second.
func (t Time) valid() bool { return t.Nsec < 1e9 }

// The first and last second whose year has four digits: beyond them the
// calendar form would not sort as text and RFC 3339 does not define it.
const (
	firstSecond = -62167219200 // 0000-01-01T00:00:00Z
	lastSecond  = 253402300799 // 9999-12-31T23:59:59Z

	timeLayout = "2006-01-02T15:04:05.000000000Z"
)

// String returns t in UTC with nine digits: 2026-01-02T15:04:05.000000000Z. A
// time outside the years 0 to 9999 is written as seconds, @-99999999999.000000001.
func (t Time) String() string {
	if t.Sec < firstSecond || t.Sec > lastSecond {
		return fmt.Sprintf("@%d.%09d", t.Sec, t.Nsec)
	}
	return t.Time().Format(timeLayout)
}

// MarshalText returns what String does.
func (t Time) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads what MarshalText writes. Anything else is an ErrInvalid.
func (t *Time) UnmarshalText(p []byte) error {
	s := string(p)
	if rest, ok := strings.CutPrefix(s, "@"); ok {
		sec, nsec, _ := strings.Cut(rest, ".")
		a, errA := strconv.ParseInt(sec, 10, 64)
		b, errB := strconv.ParseUint(nsec, 10, 32)
		if v := (Time{Sec: a, Nsec: uint32(b)}); errA == nil && errB == nil && v.valid() && v.String() == s { //nolint:gosec // parsed as 32 bits
			*t = v
			return nil
		}
	} else if v, err := time.Parse(timeLayout, s); err == nil && TimeOf(v).String() == s {
		*t = TimeOf(v)
		return nil
	}
	return fmt.Errorf("time %q: %w", s, ErrInvalid)
}
