package engine

import (
	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/meter"
	"github.com/cairn-backup/cairn/backend/retry"
	"github.com/cairn-backup/cairn/engine/progress"
)

// Traffic counts what an operation asked of the store, tries that failed and
// were sent again included. Of operations that run at once on one Repository
// each counts the other's requests, too.
type Traffic struct {
	meter.Counts
	Retries int64 // calls that were sent again
}

// Sub returns what was counted from then to t.
func (t Traffic) Sub(then Traffic) Traffic {
	return Traffic{Counts: t.Counts.Sub(then.Counts), Retries: t.Retries - then.Retries}
}

// A line is the way to the store: calls are tried again, and each try counted.
type line struct {
	*retry.Backend
	counted *meter.Backend
}

// newLine wraps b. One that tries again by itself keeps its own policy, and
// what it sends is not seen from here.
func newLine(b backend.Backend, policy retry.Policy) *line {
	if own, ok := b.(*retry.Backend); ok {
		counted := meter.New(own)
		return &line{Backend: retry.New(counted, retry.Policy{Tries: 1}), counted: counted}
	}
	counted := meter.New(b)
	return &line{Backend: retry.New(counted, policy), counted: counted}
}

// Counts returns the requests so far.
func (l *line) Counts() meter.Counts { return l.counted.Counts() }

// Traffic returns what this Repository asked of the store since Open.
func (r *Repository) Traffic() Traffic {
	return Traffic{Counts: r.meter.Counts(), Retries: r.meter.Retries()}
}

// newMeter returns what reports to f how far one operation is, and what it asks
// of the store.
func (r *Repository) newMeter(f progress.Func) *progress.Meter {
	m, before := progress.NewMeter(f), r.Traffic()
	m.SetTraffic(func() (requests, retries int64) {
		t := r.Traffic().Sub(before)
		return t.Requests(), t.Retries
	})
	return m
}
