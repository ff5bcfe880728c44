package manifest

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A Period is a length of time by the calendar: a month is as long as the month
// is. The zero Period stands for none.
type Period struct {
	Years, Months, Days, Hours int // each 0 to 9999
}

// maxPeriod is the largest number of a unit: no date is out of reach.
const maxPeriod = 9999

// ParsePeriod reads a period such as 7d, 2w, 1y5m or 1y5m7d2h: whole numbers of
// years (y), months (m), weeks (w), days (d) and hours (h), in this order and
// each at most once. A period of nothing, and anything else, is an ErrInvalid.
func ParsePeriod(s string) (Period, error) {
	var p Period
	rest, units := s, "ymwdh"
	for rest != "" {
		digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
		n, err := strconv.Atoi(rest[:digits])
		if err != nil || n > maxPeriod || digits == len(rest) {
			return Period{}, badPeriod(s)
		}
		at := strings.IndexByte(units, rest[digits])
		if at < 0 {
			return Period{}, badPeriod(s)
		}
		switch units[at] {
		case 'y':
			p.Years = n
		case 'm':
			p.Months = n
		case 'w':
			p.Days = 7 * n
		case 'd':
			p.Days += n
		case 'h':
			p.Hours = n
		}
		rest, units = rest[digits+1:], units[at+1:]
	}
	if p.IsZero() || !p.valid() {
		return Period{}, badPeriod(s)
	}
	return p, nil
}

func badPeriod(s string) error {
	return fmt.Errorf("period %q is not such as 7d, 2w, 36h or 1y5m, where m is months: %w", s, ErrInvalid)
}

// IsZero reports whether p is the zero Period.
func (p Period) IsZero() bool { return p == Period{} }

func (p Period) valid() bool {
	for _, n := range []int{p.Years, p.Months, p.Days, p.Hours} {
		if n < 0 || n > maxPeriod {
			return false
		}
	}
	return true
}

// String returns p as ParsePeriod reads it, without weeks; "" for the zero
// Period.
func (p Period) String() string {
	var b strings.Builder
	for _, part := range []struct {
		n    int
		unit byte
	}{{p.Years, 'y'}, {p.Months, 'm'}, {p.Days, 'd'}, {p.Hours, 'h'}} {
		if part.n != 0 {
			b.WriteString(strconv.Itoa(part.n))
			b.WriteByte(part.unit)
		}
	}
	return b.String()
}

// Before returns the moment that lies p before t, by the calendar of t's time
// zone. A day that a month does not have is its last one: a month before 31
// March is the end of February, so that nothing of that month is lost.
func (p Period) Before(t time.Time) time.Time {
	year, month, day := t.Date()
	months := year*12 + int(month) - 1 - p.Years*12 - p.Months
	year, month = floorDiv(months, 12), time.Month(months-12*floorDiv(months, 12)+1)
	last := time.Date(year, month+1, 0, 0, 0, 0, 0, time.UTC).Day()
	hour, minute, second := t.Clock()
	moved := time.Date(year, month, min(day, last)-p.Days, hour, minute, second, t.Nanosecond(), t.Location())
	return moved.Add(-time.Duration(p.Hours) * time.Hour)
}

// floorDiv divides and rounds down, also below zero.
func floorDiv(a, b int) int {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}
