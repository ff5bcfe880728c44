package main

import (
	"strings"
	"testing"
	"time"

	"github.com/cairn-backup/cairn/engine/progress"
)

func TestProgressLine(t *testing.T) {
	tick := progress.Tick{
		Phase: progress.Read, Files: progress.Count{Done: 1204, Total: 12034}, Bytes: progress.Count{Done: 812 << 20, Total: 3328599655},
		New: 80 << 20, Retries: 1,
	}
	const want = "read  1,204 of 12,034 files  812 MiB of 3.1 GiB  new 80 MiB  1 retry  1:09"
	if got := progressLine(tick, 69*time.Second); got != want {
		t.Errorf("progressLine = %q, want %q", got, want)
	}
}

// TestOutputKeepsProgressApart: whatever is written takes the line of progress
// away first.
func TestOutputKeepsProgressApart(t *testing.T) {
	var screen strings.Builder // stdout and stderr of a terminal are one
	o := &output{stdout: &screen, stderr: &screen, width: func() int { return 20 }}
	o.draw("read  a line that is far too long for it")
	o.say("one")
	o.draw("read")
	o.complain("two")
	o.draw("read")
	o.clear()
	const erase = "\r\x1b[K"
	want := erase + "read  a line that i" + erase + "one\n" + erase + "read" + erase + "two\n" + erase + "read" + erase
	if got := screen.String(); got != want {
		t.Errorf("the terminal got %q, want %q", got, want)
	}
}

// TestNoProgressElsewhere: with no terminal nothing is drawn, with --json the
// ticks are events, and --quiet and --no-progress are kept.
func TestNoProgressElsewhere(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(a *app)
		stdout string
		stderr string
	}{
		{name: "pipe", change: func(*app) {}},
		{name: "terminal", change: func(a *app) { a.out.live = true }, stderr: "\r\x1b[Kread  0:00\r\x1b[K"},
		{name: "json", change: func(a *app) { a.out.json = true }, stdout: `{"event":"tick","phase":"read","files":{"done":0,"total":0},` +
			`"bytes":{"done":0,"total":0},"new":0,"stored":0,"requests":0,"retries":0}` + "\n"},
		{name: "json quiet", change: func(a *app) { a.out.json, a.out.quiet = true, true }},
		{name: "json no progress", change: func(a *app) { a.out.json, a.flags.noProgress = true, true }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr strings.Builder
			a := &app{out: &output{stdout: &stdout, stderr: &stderr, width: func() int { return 80 }}}
			tt.change(a)
			f := a.watch()
			f(progress.Tick{Phase: progress.Read})
			f(progress.Finished{})
			if stdout.String() != tt.stdout || stderr.String() != tt.stderr {
				t.Errorf("stdout %q, stderr %q, want %q and %q", stdout.String(), stderr.String(), tt.stdout, tt.stderr)
			}
		})
	}
}
