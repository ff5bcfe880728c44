package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/term"
)

// An output is the two streams of one run. It keeps the bar of progress and
// everything else apart, and the first error of a write. It is safe for
// concurrent use.
type output struct {
	stdout, stderr io.Writer

	quiet, verbose, json bool
	live                 bool       // progress is drawn on stderr, a terminal
	colours              bool       // in what is drawn
	width                func() int // of that terminal, in columns

	mu    sync.Mutex // guards what follows, and the order of writes
	drawn bool       // a bar is on the terminal
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
	line, err := marshal(v)
	if err != nil {
		return err
	}
	_, err = o.Write(append(line, '\n'))
	return err
}

// marshal returns v as JSON in one line, as people can read it.
func marshal(v any) ([]byte, error) {
	var line bytes.Buffer
	enc := json.NewEncoder(&line)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimSuffix(line.Bytes(), []byte("\n")), err
}

// draw shows the bar of m, in place of what was drawn last.
func (o *output) draw(m *meter) {
	o.mu.Lock()
	defer o.mu.Unlock()
	m.bar.SetWidth(max(o.width()-1, 1)) // in the last column some terminals go on to the next line
	m.bar.Write()
	o.drawn = true
}

// lines returns a writer to stderr for what another process says there. While a
// bar is drawn only whole lines are passed on, since the bar would be drawn over
// the rest; done passes on what is left.
func (o *output) lines() (w io.Writer, done func()) {
	if !o.live {
		return o.stderr, func() {}
	}
	l := &lineWriter{out: o}
	return l, l.flush
}

// A lineWriter collects lines. Its methods are not for concurrent use.
type lineWriter struct {
	out  *output
	rest []byte
}

// maxLine bounds what is held back, in bytes.
const maxLine = 4096

func (l *lineWriter) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	if i := bytes.LastIndexByte(l.rest, '\n') + 1; i > 0 {
		l.out.raw(l.rest[:i])
		l.rest = append(l.rest[:0], l.rest[i:]...)
	}
	if len(l.rest) > maxLine {
		l.flush()
	}
	return len(p), nil
}

func (l *lineWriter) flush() {
	if len(l.rest) > 0 {
		l.out.raw(append(l.rest, '\n'))
		l.rest = nil
	}
}

// raw writes p, which ends a line, to stderr as it is.
func (o *output) raw(p []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.erase()
	_, _ = o.stderr.Write(p) // there is nowhere left to report it
}

// clear takes the bar away.
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
