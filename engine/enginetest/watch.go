package enginetest

import (
	"context"
	"io"
	"iter"
	"sync"

	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/manifest"
)

// A WatchedSource counts how a source is read and lets a test act meanwhile.
// Its hooks are set before Open. It is safe for concurrent use.
type WatchedSource struct {
	src source.Source

	// OnOpen is called before a file is opened, with its path in the
	// snapshot. An error takes the place of the file. Default: none.
	OnOpen func(path string) error

	// OnRead is called after the first Read of each file. Default: none.
	OnRead func(path string)

	// OnFinish is called by Finish, and its error returned. Default: none.
	OnFinish func() error

	mu     sync.Mutex // guards opened
	opened []string
}

var _ source.Source = (*WatchedSource)(nil)

// Watch returns a source that is src, watched.
func Watch(src source.Source) *WatchedSource { return &WatchedSource{src: src} }

// Opened returns the paths of the files that were opened since the last call.
func (w *WatchedSource) Opened() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	opened := w.opened
	w.opened = nil
	return opened
}

// Open opens the source.
func (w *WatchedSource) Open(ctx context.Context) (source.View, error) {
	v, err := w.src.Open(ctx)
	if err != nil {
		return nil, err
	}
	return &watchedView{View: v, w: w}, nil
}

type watchedView struct {
	source.View
	w *WatchedSource
}

var _ source.Completer = (*watchedView)(nil)

// Complete hands on, since embedding hides what the view can do.
func (v *watchedView) Complete(ctx context.Context, path string, n *manifest.Node) error {
	return source.Complete(ctx, v.View, path, n)
}

// ReadDir hands on.
func (v *watchedView) ReadDir(ctx context.Context, path string) iter.Seq2[manifest.Node, error] {
	return v.View.ReadDir(ctx, path)
}

// OpenFile counts.
func (v *watchedView) OpenFile(ctx context.Context, path string) (io.ReadCloser, error) {
	v.w.mu.Lock()
	v.w.opened = append(v.w.opened, path)
	v.w.mu.Unlock()
	if v.w.OnOpen != nil {
		if err := v.w.OnOpen(path); err != nil {
			return nil, err
		}
	}
	f, err := v.View.OpenFile(ctx, path)
	if err != nil || v.w.OnRead == nil {
		return f, err
	}
	watched := &watchedFile{ReadCloser: f, read: func() { v.w.OnRead(path) }}
	if a, ok := f.(source.Again); ok {
		return &watchedAgain{watchedFile: watched, again: a}, nil
	}
	return watched, nil
}

// Finish calls the hook.
func (v *watchedView) Finish(ctx context.Context) error {
	if v.w.OnFinish != nil {
		if err := v.w.OnFinish(); err != nil {
			return err
		}
	}
	return v.View.Finish(ctx)
}

// A watchedFile is read front to back, holes and all.
type watchedFile struct {
	io.ReadCloser
	once sync.Once
	read func()
}

// Read calls the hook after the first time.
func (f *watchedFile) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	f.once.Do(f.read)
	return n, err
}

// A watchedAgain is a file that can be looked at again.
type watchedAgain struct {
	*watchedFile
	again source.Again
}

// Again hands on.
func (f *watchedAgain) Again() (manifest.Node, error) { return f.again.Again() }
