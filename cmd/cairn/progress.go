package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/cairn-backup/cairn/engine/progress"
)

// plainInterval is the time between two lines of progress where they are not
// drawn over each other.
const plainInterval = 5 * time.Second

// watch returns what shows the progress of one operation: a line on a
// terminal, a line now and then with --verbose elsewhere, an event a line with
// --json, or nothing.
func (a *app) watch() progress.Func {
	start, last := time.Now(), time.Now()
	return func(e progress.Event) {
		switch e := e.(type) {
		case progress.Tick:
			switch {
			case a.out.json && !a.out.quiet && !a.flags.noProgress:
				_ = a.out.document(tickEvent(e)) // a.out keeps the error
			case a.out.json || a.out.quiet || a.flags.noProgress:
			case a.out.live:
				a.out.draw(progressLine(e, time.Since(start)))
			case a.out.verbose && time.Since(last) >= plainInterval:
				last = time.Now()
				a.out.note("%s", progressLine(e, time.Since(start)))
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

// progressLine is, for example,
// "read  1,204 of 12,034 files  812 MiB of 3.1 GiB  new 80 MiB  0:09".
func progressLine(t progress.Tick, elapsed time.Duration) string {
	parts := []string{string(t.Phase)}
	if t.Files.Done > 0 || t.Files.Total > 0 {
		parts = append(parts, of(t.Files, count)+" files")
	}
	if t.Bytes.Done > 0 || t.Bytes.Total > 0 {
		parts = append(parts, of(t.Bytes, size))
	}
	if t.New > 0 {
		parts = append(parts, "new "+size(t.New))
	}
	if t.Stored > 0 {
		parts = append(parts, "stored "+size(t.Stored))
	}
	if t.Retries > 0 {
		parts = append(parts, plural(t.Retries, "retry", "retries"))
	}
	s := int(elapsed.Seconds())
	clock := fmt.Sprintf("%d:%02d", s/60, s%60)
	return strings.Join(append(parts, clock), "  ")
}

func of(c progress.Count, format func(int64) string) string {
	if c.Total > 0 {
		return format(c.Done) + " of " + format(c.Total)
	}
	return format(c.Done)
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
