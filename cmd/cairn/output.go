package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/term"
)

// An output is the two streams of one run. It keeps the line of progress and
// everything else apart, and the first error of a write. It is safe for
// concurrent use.
type output struct {
	stdout, stderr io.Writer

	quiet, verbose, json bool
	live                 bool       // progress is drawn on stderr, a terminal
	width                func() int // of that terminal, in columns

	mu    sync.Mutex // guards what follows, and the order of writes
	drawn bool       // a line of progress is on the terminal
	err   error      // the first error of a write to stdout
}

// say writes one line for people to stdout. With --quiet or --json there is
// none.
func (o *output) say(format string, args ...any) {
	if !o.quiet && !o.json {
		o.result(format, args...)
	}
}

// result writes one line to stdout that was asked for, also with --quiet.
func (o *output) result(format string, args ...any) {
	_, _ = fmt.Fprintf(o, format+"\n", args...) // o keeps the error
}

// note writes one line to stderr that --quiet suppresses.
func (o *output) note(format string, args ...any) {
	if !o.quiet {
		o.complain(format, args...)
	}
}

// complain writes one line to stderr.
func (o *output) complain(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.erase()
	_, _ = fmt.Fprintf(o.stderr, format+"\n", args...) // there is nowhere left to report it
}

// Write writes to stdout. The first error is kept and ends all later writes.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return 0, o.err
	}
	o.erase()
	n, err := o.stdout.Write(p)
	if err != nil {
		o.err = fmt.Errorf("write to standard output: %w", err)
	}
	return n, o.err
}

// document writes v as one line of JSON to stdout.
func (o *output) document(v any) error {
	enc := json.NewEncoder(o)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// draw shows line as the progress, in place of the last one.
func (o *output) draw(line string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if w := o.width() - 1; len(line) > w {
		line = line[:max(w, 0)]
	}
	_, _ = fmt.Fprint(o.stderr, "\r\x1b[K"+line) // progress is not worth failing for
	o.drawn = true
}

// clear takes the line of progress away.
func (o *output) clear() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.erase()
}

// erase is clear for callers that hold mu.
func (o *output) erase() {
	if o.drawn {
		_, _ = fmt.Fprint(o.stderr, "\r\x1b[K")
		o.drawn = false
	}
}

// failed returns the first error of a write to stdout.
func (o *output) failed() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// terminal returns the descriptor of stream if it is a terminal.
func terminal(stream any) (fd int, ok bool) {
	f, ok := stream.(*os.File)
	if !ok {
		return 0, false
	}
	fd = int(f.Fd()) //nolint:gosec // a descriptor is small
	return fd, term.IsTerminal(fd)
}

// columns returns the width of the terminal fd, 80 if it is not known.
func columns(fd int) int {
	if w, _, err := term.GetSize(fd); err == nil && w > 0 {
		return w
	}
	return 80
}
