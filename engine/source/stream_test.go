package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"github.com/cairn-backup/cairn/manifest"
)

func TestStream(t *testing.T) {
	boom := errors.New("boom")
	tests := []struct {
		name    string
		produce func(context.Context, io.Writer) error
		want    string
		err     error
	}{
		{"whole", func(_ context.Context, w io.Writer) error {
			for i := range 100000 {
				fmt.Fprintln(w, i%10)
			}
			return nil
		}, strings.Repeat("0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n", 10000), nil},
		{"empty", func(context.Context, io.Writer) error { return nil }, "", ErrEmptyStream},
		{"fails", func(_ context.Context, w io.Writer) error { io.WriteString(w, "part"); return boom }, "", boom},
		{"fails with EOF", func(_ context.Context, w io.Writer) error {
			_, _ = w.Write(make([]byte, 2*streamBuffer))
			return fmt.Errorf("connection: %w", io.EOF)
		}, string(make([]byte, 2*streamBuffer)), ErrSource},
		{"breaks off", func(_ context.Context, w io.Writer) error { io.WriteString(w, "part"); return io.ErrUnexpectedEOF }, "", ErrSource},
		{"fails with its own time limit", func(context.Context, io.Writer) error { return context.DeadlineExceeded }, "", context.DeadlineExceeded},
		{"fails late", func(_ context.Context, w io.Writer) error {
			_, _ = w.Write(make([]byte, 3*streamBuffer))
			return boom
		}, string(make([]byte, 3*streamBuffer)), boom},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v, err := Stream("dump.sql", tt.produce).Open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer v.Close()
			if i := v.Info(); i.Kind != manifest.KindStream || i.Name != "dump.sql" || i.Roots[0].Name != "dump.sql" {
				t.Errorf("Info() = %+v", i)
			}
			f, err := v.OpenFile(t.Context(), "dump.sql")
			if err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(f)
			if string(data) != tt.want || !errors.Is(err, tt.err) || (tt.err != nil && !errors.Is(err, ErrSource)) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%d bytes, %v; want %d, %v", len(data), err, len(tt.want), tt.err)
			}
			if err := v.Finish(t.Context()); !errors.Is(err, tt.err) {
				t.Errorf("Finish = %v, want %v", err, tt.err)
			}
			if err := f.Close(); err != nil {
				t.Error(err)
			}
			if err := v.Finish(t.Context()); !errors.Is(err, tt.err) {
				t.Errorf("Finish after Close = %v, want %v", err, tt.err)
			}
			if _, err := v.OpenFile(t.Context(), "dump.sql"); !errors.Is(err, ErrStreamRead) {
				t.Errorf("second OpenFile = %v, want ErrStreamRead", err)
			}
		})
	}
}

// TestStreamFailureIsNoShortContent: io.ReadFull says io.ErrUnexpectedEOF of a
// short but whole stream, and nothing like it of one that broke off.
func TestStreamFailureIsNoShortContent(t *testing.T) {
	for _, cause := range []error{nil, io.EOF, io.ErrUnexpectedEOF} {
		v, err := Stream("s", func(_ context.Context, w io.Writer) error {
			w.(interface{ Flush() error }).Flush()
			io.WriteString(w, "part")
			w.(interface{ Flush() error }).Flush()
			return cause
		}).Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		f, err := v.OpenFile(t.Context(), "s")
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.ReadFull(f, make([]byte, 100))
		if short := errors.Is(err, io.ErrUnexpectedEOF); short != (cause == nil) {
			t.Errorf("producer returns %v: ReadFull returns %v", cause, err)
		}
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestStreamAllowEmpty(t *testing.T) {
	s := Stream("s", func(context.Context, io.Writer) error { return nil })
	s.AllowEmpty = true
	v, err := s.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	f, err := v.OpenFile(t.Context(), "s")
	if err != nil {
		t.Fatal(err)
	}
	if err := iotest.TestReader(f, nil); err != nil {
		t.Error(err)
	}
	if err := v.Finish(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestStreamMustBeReadToItsEnd(t *testing.T) {
	v, err := Stream("s", func(_ context.Context, w io.Writer) error { _, err := w.Write(make([]byte, 10)); return err }).Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if err := v.Finish(t.Context()); !errors.Is(err, ErrStreamRead) {
		t.Errorf("Finish before OpenFile = %v, want ErrStreamRead", err)
	}
	f, err := v.OpenFile(t.Context(), "s")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(f, make([]byte, 10)); err != nil {
		t.Error(err)
	}
	if err := v.Finish(t.Context()); !errors.Is(err, ErrStreamRead) {
		t.Errorf("Finish before the end = %v, want ErrStreamRead", err)
	}
}

// TestStreamStopsItsProducer: a goroutine that stays behind fails the bubble.
func TestStreamStopsItsProducer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, produce := range []func(context.Context, io.Writer) error{
			func(ctx context.Context, _ io.Writer) error { <-ctx.Done(); return ctx.Err() },
			func(_ context.Context, w io.Writer) error {
				for {
					if _, err := w.Write(make([]byte, 1000)); err != nil {
						return err
					}
				}
			},
		} {
			v, err := Stream("s", produce).Open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := v.OpenFile(t.Context(), "s"); err != nil {
				t.Fatal(err)
			}
			if err := v.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestStreamCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	v, err := Stream("s", func(ctx context.Context, _ io.Writer) error { <-ctx.Done(); return ctx.Err() }).Open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	f, err := v.OpenFile(ctx, "s")
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	_, err = io.ReadAll(f)
	if !errors.Is(err, context.Canceled) || errors.Is(err, ErrSource) {
		t.Errorf("Read = %v, want nothing but context.Canceled", err)
	}
}

func TestStreamTree(t *testing.T) {
	v, err := Stream("/dir/name", nil).Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for n, err := range v.ReadDir(t.Context(), "") {
		if err != nil || n.Name != "name" || n.Kind != manifest.File || n.MTime.IsZero() {
			t.Errorf("%+v, %v", n, err)
		}
	}
	for _, err := range v.ReadDir(t.Context(), "name") {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("ReadDir of the file: %v", err)
		}
	}
	if _, err := v.OpenFile(t.Context(), "other"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("OpenFile of another: %v", err)
	}
}
