package main

import (
	"regexp"
	"strings"
	"testing"

	"github.com/cairn-backup/cairn/engine/progress"
)

// A screen is a terminal of one line that is written to and those above it. It
// knows what output writes: carriage returns, colours, and the erasure of a line.
type screen struct {
	width   int
	wrapped bool // something was longer than a line
	lines   []string
	line    []rune
	at      int
	colour  bool // a colour was seen
}

var escape = regexp.MustCompile(`^\x1b\[([0-9;]*)([A-Za-z])`)

func (s *screen) Write(p []byte) (int, error) {
	for text := string(p); text != ""; {
		if m := escape.FindStringSubmatch(text); m != nil {
			text = text[len(m[0]):]
			switch m[2] {
			case "K":
				s.line = s.line[:min(s.at, len(s.line))]
			case "m":
				s.colour = true
			default:
				s.lines = append(s.lines, "unknown escape "+m[0])
			}
			continue
		}
		r := []rune(text)[0]
		text = text[len(string(r)):]
		switch r {
		case '\r':
			s.at = 0
		case '\n':
			s.lines = append(s.lines, strings.TrimRight(string(s.line), " "))
			s.line = nil
			s.at = 0 // as terminals do by default for programs
		default:
			for len(s.line) <= s.at {
				s.line = append(s.line, ' ')
			}
			s.line[s.at] = r
			s.at++
			s.wrapped = s.wrapped || s.at > s.width
		}
	}
	return len(p), nil
}

// TestMeter looks at what is shown of ticks.
func TestMeter(t *testing.T) {
	tick := progress.Tick{
		Phase: progress.Read, Files: progress.Count{Done: 1204, Total: 12034}, Bytes: progress.Count{Done: 812 << 20, Total: 3328599655},
		New: 80 << 20, Retries: 1,
	}
	open := tick
	open.Files.Total, open.Bytes.Total = 0, 0
	for _, tt := range []struct {
		name          string
		live, colours bool
		tick          progress.Tick
		want          string
	}{
		{"text", false, false, tick, `^read  812\.00 MiB / 3\.10 GiB  -  -  1,204 of 12,034 files  new 80 MiB  1 retry$`},
		{"text, no total", false, false, open, `^read  812\.00 MiB  -  0(\.\d)?s  1,204 files  new 80 MiB  1 retry$`},
		{"bar", true, false, tick, `^read  812\.00 MiB / 3\.10 GiB  \[-+>_+\]  -  -  1,204 of 12,034 files  new 80 MiB  1 retry$`},
		{"bar in colours", true, true, tick, `^read  812\.00 MiB / 3\.10 GiB  \[-+>_+\]  -  -  1,204 of 12,034 files  new 80 MiB  1 retry$`},
		{"no total", true, false, open, `^read  812\.00 MiB  -  0(\.\d)?s  1,204 files  new 80 MiB  1 retry$`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &screen{width: 120}
			o := &output{stdout: s, stderr: s, live: tt.live, colours: tt.colours, width: func() int { return 120 }}
			m := newMeter(o)
			m.set(tt.tick)
			var got string
			if tt.live {
				o.draw(m)
				got = strings.TrimRight(string(s.line), " ")
			} else {
				got = m.line()
			}
			if err := m.bar.Err(); err != nil || !regexp.MustCompile(tt.want).MatchString(got) {
				t.Errorf("%q, %v, want %s", got, err, tt.want)
			}
			if s.wrapped || len(s.lines) > 0 || !tt.colours && s.colour {
				t.Errorf("the screen is %+v", s)
			}
		})
	}
}

// TestOutputKeepsProgressApart: whatever is written takes the bar away first,
// and no bar is wider than the terminal.
func TestOutputKeepsProgressApart(t *testing.T) {
	for _, width := range []int{1, 2, 10, 20, 40, 80, 200} {
		s := &screen{width: max(width, 3)}
		o := &output{stdout: s, stderr: s, live: true, width: func() int { return width }}
		m := newMeter(o)
		draw := func(total int64) {
			m.set(progress.Tick{Phase: progress.Read, Bytes: progress.Count{Done: 1 << 20, Total: total}, New: 1 << 30})
			o.draw(m)
		}
		draw(0)
		draw(1 << 40)
		wide := len(s.line) // what the bar alone makes of the screen
		o.say("one")
		draw(0)
		o.complain("two")
		child, done := o.lines()
		draw(0)
		_, _ = child.Write([]byte("thr"))
		draw(1 << 30)
		_, _ = child.Write([]byte("ee\nfo"))
		draw(0)
		_, _ = child.Write([]byte("ur"))
		done()
		draw(1 << 30)
		o.clear()
		if got := strings.Join(s.lines, "|"); got != "one|two|three|four" || len(s.line) > 0 {
			t.Errorf("%d columns: the terminal shows %q and %q", width, got, string(s.line))
		}
		if wide > max(width-1, 1) {
			t.Errorf("%d columns: the bar has %d", width, wide)
		}
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
		{name: "terminal", change: func(a *app) { a.out.live = true }, stderr: `^\rread  0 B  -  0(\.\d)?s +\r\x1b\[K$`},
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
			wrong := stderr.String() != ""
			if tt.stderr != "" {
				wrong = !regexp.MustCompile(tt.stderr).MatchString(stderr.String())
			}
			if stdout.String() != tt.stdout || wrong {
				t.Errorf("stdout %q, stderr %q, want %q and %q", stdout.String(), stderr.String(), tt.stdout, tt.stderr)
			}
		})
	}
}
