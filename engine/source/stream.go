package source

import (
	"bufio"
	"context"
	"io"
	"io/fs"
	"iter"
	"sync"
	"time"

	"github.com/cairn-backup/cairn/manifest"
)

// A StreamSource is one stream of bytes that a function produces: the output
// of a dump, for one. It is one root, a regular file.
type StreamSource struct {
	name    string
	produce func(ctx context.Context, w io.Writer) error

	// AllowEmpty makes a stream of no bytes a stream like any other. Else it
	// is ErrEmptyStream, since a dump that says nothing has mostly failed.
	AllowEmpty bool
}

var _ Source = (*StreamSource)(nil)

// Stream returns a source that is what produce writes, under name, which is
// used as the name of a file. When produce fails, reading fails, and so does
// Finish: nothing is published. Produce must return soon when ctx is done or
// when writing fails.
func Stream(name string, produce func(ctx context.Context, w io.Writer) error) *StreamSource {
	return &StreamSource{name: name, produce: produce}
}

// Open returns a view in which the file can be opened once.
func (s *StreamSource) Open(ctx context.Context) (View, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	root := manifest.UniqueNames([]string{s.name})[0]
	return &streamView{source: s, root: root, start: manifest.TimeOf(time.Now())}, nil
}

type streamView struct {
	source *StreamSource
	root   manifest.Root
	start  manifest.Time

	mu     sync.Mutex // guards reader
	reader *streamReader
}

func (v *streamView) Info() Info {
	return Info{Kind: manifest.KindStream, Name: v.root.Name, Roots: []manifest.Root{v.root}}
}

// ReadDir yields a node of size 0: the size of a stream is known at its end.
func (v *streamView) ReadDir(ctx context.Context, path string) iter.Seq2[manifest.Node, error] {
	return func(yield func(manifest.Node, error) bool) {
		err := ctx.Err()
		if err == nil && path != "" {
			err = &Error{Op: "read", Path: path, Err: fs.ErrNotExist}
		}
		if err != nil {
			yield(manifest.Node{}, err)
			return
		}
		yield(manifest.Node{Name: v.root.Name, Kind: manifest.File, Mode: 0o600, MTime: v.start}, nil)
	}
}

// OpenFile starts the producer.
func (v *streamView) OpenFile(ctx context.Context, path string) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if path != v.root.Name {
		return nil, &Error{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.reader != nil {
		return nil, v.fail(ErrStreamRead)
	}
	v.reader = v.begin(ctx)
	return v.reader, nil
}

func (v *streamView) fail(err error) error {
	return &Error{Op: "read", Path: v.source.name, Err: err}
}

// streamBuffer holds small writes together, in bytes: each passage of the pipe
// is a change of goroutines.
const streamBuffer = 256 << 10

func (v *streamView) begin(parent context.Context) *streamReader {
	ctx, cancel := context.WithCancel(parent)
	pr, pw := io.Pipe()
	r := &streamReader{view: v, pipe: pr, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		w := bufio.NewWriterSize(pw, streamBuffer)
		err := v.source.produce(ctx, w)
		if err == nil {
			err = w.Flush()
		}
		switch {
		case err == nil:
		case parent.Err() != nil:
			err = parent.Err() // no fault of the source
		default:
			err = v.fail(noEOF(err))
		}
		_ = pw.CloseWithError(err) // never fails; nil is the end
	}()
	return r
}

// Finish reports whether the stream was produced and read to its end.
func (v *streamView) Finish(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	v.mu.Lock()
	r := v.reader
	v.mu.Unlock()
	if r == nil {
		return v.fail(ErrStreamRead)
	}
	return r.outcome()
}

// Close stops the producer, if it still runs, and waits for it.
func (v *streamView) Close() error {
	v.mu.Lock()
	r := v.reader
	v.mu.Unlock()
	if r == nil {
		return nil
	}
	return r.Close()
}

type streamReader struct {
	view   *streamView
	pipe   *io.PipeReader
	cancel context.CancelFunc
	done   chan struct{} // closed when the producer has returned

	mu   sync.Mutex // guards what follows
	some bool       // a byte was read
	err  error      // what Read ended with; io.EOF: all is well
}

// Read reads what is produced. It fails as the producer fails.
func (r *streamReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := r.pipe.Read(p)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.some = r.some || n > 0
	if r.err != nil {
		return n, r.err
	}
	if err == io.EOF && !r.some && !r.view.source.AllowEmpty { //nolint:errorlint // as io.Reader says
		err = r.view.fail(ErrEmptyStream)
	}
	r.err = err
	return n, err
}

// Close stops the producer and waits for it.
func (r *streamReader) Close() error {
	_ = r.pipe.Close() // never fails; later writes do
	r.cancel()
	<-r.done
	return nil
}

func (r *streamReader) outcome() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch r.err {
	case nil:
		return r.view.fail(ErrStreamRead)
	case io.EOF: //nolint:errorlint // as Read returned it; one that is wrapped is a failure
		return nil
	}
	return r.err
}
