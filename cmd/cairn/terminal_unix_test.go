//go:build unix

package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/creack/pty"
)

// TestTerminal runs a backup on a terminal, with output of all kinds between
// what is drawn: every line stands there as it was written, and nothing else.
func TestTerminal(t *testing.T) {
	const script = `i=0; while [ $i -lt 12 ]; do head -c 300000 /dev/zero; printf "note $i has " >&2; sleep 0.1; echo "a second half" >&2; i=$((i+1)); done`
	var notes []string
	for i := range 12 {
		notes = append(notes, fmt.Sprintf("note %d has a second half", i))
	}
	for _, tt := range []struct {
		name          string
		env           string
		args          []string
		width         uint16
		bars, colours bool
	}{
		{name: "bar", env: "TERM=xterm", width: 100, bars: true, colours: true},
		{name: "narrow", env: "TERM=xterm", width: 30, bars: true},
		{name: "no colours", env: "NO_COLOR=1", width: 100, bars: true},
		{name: "dumb", env: "TERM=dumb", width: 80},
		{name: "no progress", env: "TERM=xterm", width: 80, args: []string{"--no-progress"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			env := append(newRepo(t), tt.env)
			exe, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			// The first one tells the second how much there is to expect.
			run(t.Context(), []string{"backup", "--stdin", "x", "--", "head", "-c", "4000000", "/dev/zero"}, stdio{in: strings.NewReader(""), out: io.Discard, err: io.Discard}, env)
			cmd := exec.CommandContext(t.Context(), exe, append(tt.args, "backup", "--stdin", "x", "--", "sh", "-c", script)...)
			cmd.Env = env
			f, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 20, Cols: tt.width})
			if err != nil {
				t.Skipf("no pseudo-terminal here: %v", err)
			}
			defer f.Close()
			s := &screen{width: int(tt.width)}
			bars := 0
			buf := make([]byte, 4096)
			for {
				n, err := f.Read(buf)
				bars += strings.Count(string(buf[:n]), "\rread ")
				_, _ = s.Write(buf[:n])
				if err != nil { // EIO, when the program has closed it
					break
				}
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("cairn: %v\n%s", err, strings.Join(s.lines, "\n"))
			}
			last := len(s.lines) - 1
			if last < 0 || !strings.HasPrefix(s.lines[last], "snapshot ") {
				t.Fatalf("the screen shows %q", s.lines)
			}
			if !slices.Equal(s.lines[:last], notes) || len(s.line) > 0 {
				t.Errorf("the screen shows %q and %q, want %q", s.lines[:last], string(s.line), notes)
			}
			if tt.bars != (bars > 3) || s.colour != tt.colours {
				t.Errorf("%d bars were drawn, in colours: %v", bars, s.colour)
			}
		})
	}
}
