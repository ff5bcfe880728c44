package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// sameTrees returns an error that names the first difference between two
// directories: names, kinds, permissions, times of files, targets of links,
// content. Times may differ by less than precision, for who keeps no more.
func sameTrees(ctx context.Context, want, got string, precision time.Duration) error {
	c := &comparer{want: want, got: got, precision: precision, a: make([]byte, 256<<10), b: make([]byte, 256<<10)}
	return c.dir(ctx, ".")
}

// A comparer compares two trees. It holds one directory a level in memory.
type comparer struct {
	want, got string
	precision time.Duration
	a, b      []byte
}

func (c *comparer) dir(ctx context.Context, path string) error {
	want, err := os.ReadDir(filepath.Join(c.want, path))
	if err != nil {
		return err
	}
	got, err := os.ReadDir(filepath.Join(c.got, path))
	if err != nil {
		return err
	}
	for i, e := range want {
		if i >= len(got) || got[i].Name() > e.Name() {
			return fmt.Errorf("%s is missing", filepath.Join(path, e.Name()))
		}
		if got[i].Name() < e.Name() {
			return fmt.Errorf("%s is no entry of the source", filepath.Join(path, got[i].Name()))
		}
		if err := c.entry(ctx, filepath.Join(path, e.Name())); err != nil {
			return err
		}
	}
	if len(got) > len(want) {
		return fmt.Errorf("%s has %d entries, want %d", path, len(got), len(want))
	}
	return ctx.Err()
}

func (c *comparer) entry(ctx context.Context, path string) error {
	want, err := os.Lstat(filepath.Join(c.want, path))
	if err != nil {
		return err
	}
	got, err := os.Lstat(filepath.Join(c.got, path))
	if err != nil {
		return err
	}
	if want.Mode() != got.Mode() {
		return fmt.Errorf("%s has mode %v, want %v", path, got.Mode(), want.Mode())
	}
	switch {
	case want.IsDir():
		return c.dir(ctx, path)
	case want.Mode()&fs.ModeSymlink != 0:
		return c.link(path)
	case want.Size() != got.Size():
		return fmt.Errorf("%s has %d bytes, want %d", path, got.Size(), want.Size())
	case want.ModTime().Sub(got.ModTime()).Abs() >= max(1, c.precision):
		return fmt.Errorf("%s is of %v, want %v", path, got.ModTime(), want.ModTime())
	case want.Mode().IsRegular():
		return c.file(ctx, path)
	}
	return nil
}

func (c *comparer) link(path string) error {
	want, err := os.Readlink(filepath.Join(c.want, path))
	if err != nil {
		return err
	}
	got, err := os.Readlink(filepath.Join(c.got, path))
	if err == nil && got != want {
		err = fmt.Errorf("%s points to %s, want %s", path, got, want)
	}
	return err
}

func (c *comparer) file(ctx context.Context, path string) (err error) {
	want, err := os.Open(filepath.Join(c.want, path))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, want.Close()) }()
	got, err := os.Open(filepath.Join(c.got, path))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, got.Close()) }()
	for at := int64(0); ; {
		n, err := io.ReadFull(want, c.a)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
		if n == 0 {
			return nil // the sizes are equal
		}
		if _, err := io.ReadFull(got, c.b[:n]); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if !bytes.Equal(c.a[:n], c.b[:n]) {
			return fmt.Errorf("%s differs between bytes %d and %d", path, at, at+int64(n))
		}
		if at += int64(n); ctx.Err() != nil {
			return ctx.Err()
		}
	}
}
