package main

import (
	"time"

	"github.com/cairn-backup/cairn/engine/progress"
)

// plainInterval is the time between two lines of progress where they are not
// drawn over each other.
const plainInterval = 5 * time.Second

// watch returns what shows the progress of one operation: a bar on a terminal,
// a line now and then with --verbose elsewhere, an event a line with --json, or
// nothing.
func (a *app) watch() progress.Func {
	m, last := newMeter(a.out), time.Now()
	return func(e progress.Event) {
		switch e := e.(type) {
		case progress.Tick:
			switch {
			case a.out.json && !a.out.quiet && !a.flags.noProgress:
				_ = a.out.document(tickEvent(e)) // a.out keeps the error
			case a.out.json || a.out.quiet || a.flags.noProgress:
			case a.out.live:
				m.set(e)
				a.out.draw(m)
			case a.out.verbose:
				m.set(e)
				line := m.line() // each time, since it measures the rate
				if time.Since(last) >= plainInterval {
					last = time.Now()
					a.out.note("%s", line)
				}
			}
		case progress.Problem:
			a.problem(e)
		case progress.Finished:
			a.out.clear()
		}
	}
}

// problem tells of one item. Sockets and files that changed while they were
// read are told in the report.
func (a *app) problem(p progress.Problem) {
	if a.out.json && !a.out.quiet {
		_ = a.out.document(problemEvent(p)) // a.out keeps the error
	}
	switch p.What {
	case progress.Unsupported, progress.Changed:
		if a.out.verbose {
			a.out.note("%s: %s", p.What, printable(p.Path))
		}
	default:
		a.out.complain("cairn: %s: %s%s", p.What, printable(p.Path), because(p.Err))
	}
}

func because(err error) string {
	if err == nil {
		return ""
	}
	return ": " + oneLine(err)
}

type tickJSON struct {
	Event    string    `json:"event"`
	Phase    string    `json:"phase"`
	Files    countJSON `json:"files"`
	Bytes    countJSON `json:"bytes"`
	New      int64     `json:"new"`
	Stored   int64     `json:"stored"`
	Requests int64     `json:"requests"`
	Retries  int64     `json:"retries"`
}

type countJSON struct {
	Done  int64 `json:"done"`
	Total int64 `json:"total"` // 0 while unknown
}

func tickEvent(t progress.Tick) tickJSON {
	return tickJSON{
		Event: "tick", Phase: string(t.Phase),
		Files: countJSON(t.Files), Bytes: countJSON(t.Bytes),
		New: t.New, Stored: t.Stored, Requests: t.Requests, Retries: t.Retries,
	}
}

type problemJSON struct {
	Event string `json:"event,omitempty"`
	pathJSON
	What  string `json:"what"`
	Error string `json:"error"`
}

func problemEvent(p progress.Problem) problemJSON {
	j := problemJSON{Event: "problem", pathJSON: pathOf(p.Path), What: string(p.What)}
	if p.Err != nil {
		j.Error = p.Err.Error()
	}
	return j
}
