package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/engine/source/sqlite"
)

// A backupInput is what one backup reads: paths, or else a stream or a database.
type backupInput struct {
	paths   []string // absolute
	exclude []string
	ignore  []string // names of ignore files
	oneFS   bool
	caches  bool // those with a tag are left out
	pages   []string

	stream   *source.StreamSource
	database *sqlite.Source // at the one path of paths
}

// backupInput finds out what is to be backed up. dash is how many arguments
// stand before "--", or -1.
func (a *app) backupInput(f backupFlags, args []string, dash int) (backupInput, error) {
	if err := nonEmpty(args); err != nil {
		return backupInput{}, err
	}
	if f.sqlite != "" {
		return databaseInput(f, args)
	}
	if f.stdin != "" {
		return a.streamInput(f, args, dash)
	}
	if f.allowEmpty {
		return backupInput{}, usagef("--allow-empty goes with --stdin")
	}
	for _, name := range f.filesFrom {
		more, err := a.readLines(name)
		if err != nil {
			return backupInput{}, usagef("--files-from: %v", err)
		}
		args = append(args, more...)
	}
	if len(args) == 0 {
		return backupInput{}, usagef("cairn backup needs a PATH, --stdin or --sqlite")
	}
	exclude := f.exclude
	for _, name := range f.excludeFile {
		more, err := a.readLines(name)
		if err != nil {
			return backupInput{}, usagef("--exclude-file: %v", err)
		}
		exclude = append(exclude, more...)
	}
	paths, err := absolutes(args)
	if err != nil {
		return backupInput{}, err
	}
	for _, p := range paths {
		// A root that is not there is a typing error or an unmounted disk, and
		// no item that could not be read.
		if err := lookAt(p); err != nil {
			return backupInput{}, err
		}
	}
	return backupInput{paths: paths, exclude: exclude, ignore: f.ignoreFile, oneFS: f.oneFileSystem, caches: f.excludeCaches, pages: f.pages}, nil
}

// lookAt returns an error if what is at path cannot be looked at.
func lookAt(path string) error {
	_, err := os.Lstat(path)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("backup: %w", err)
	if errors.Is(err, fs.ErrNotExist) {
		err = withHint(err, "check the path: nothing is there")
	}
	return err
}

// ofPaths reports whether f holds what only backups of PATHs know.
func (f backupFlags) ofPaths() bool {
	return len(f.filesFrom)+len(f.exclude)+len(f.excludeFile)+len(f.ignoreFile)+len(f.pages) > 0 || f.oneFileSystem || f.excludeCaches
}

const flagsOfPaths = "--files-from, --exclude, --exclude-file, --ignore-file, --exclude-caches, --one-file-system and --pages"

func (a *app) streamInput(f backupFlags, args []string, dash int) (backupInput, error) {
	switch {
	case len(args) > 0 && dash != 0:
		return backupInput{}, usagef("--stdin takes no PATH; a command to run stands behind --")
	case f.ofPaths():
		return backupInput{}, usagef("--stdin does not go with %s", flagsOfPaths)
	case strings.ContainsAny(f.stdin, "/\x00") || f.stdin == "." || f.stdin == "..":
		return backupInput{}, usagef("--stdin: %q is no name of a file", printableText(f.stdin))
	}
	produce := a.copyStdin
	if len(args) > 0 {
		produce = func(ctx context.Context, w io.Writer) error { return a.runProducer(ctx, w, args) }
	} else if _, ok := terminal(a.stdin); ok {
		return backupInput{}, withHint(usagef("standard input is a terminal"), "pipe something into it, or name a command: cairn backup --stdin NAME -- COMMAND")
	}
	s := source.Stream(f.stdin, produce)
	s.AllowEmpty = f.allowEmpty
	return backupInput{stream: s}, nil
}

func databaseInput(f backupFlags, args []string) (backupInput, error) {
	if len(args) > 0 || f.ofPaths() || f.stdin != "" || f.allowEmpty {
		return backupInput{}, usagef("--sqlite backs up one database and takes no PATH, --stdin, --allow-empty, %s", flagsOfPaths)
	}
	paths, err := absolutes([]string{f.sqlite})
	if err != nil {
		return backupInput{}, err
	}
	if err := lookAt(paths[0]); err != nil { // before a repository is made for it
		return backupInput{}, err
	}
	return backupInput{paths: paths, database: sqlite.File(paths[0])}, nil
}

// source returns what is read, without the paths of own.
func (in backupInput) source(own []string) source.Source {
	if in.stream != nil {
		return in.stream
	}
	if in.database != nil {
		return in.database
	}
	sources := make([]source.Source, len(in.paths))
	for i, p := range in.paths {
		d := source.Dir(p)
		d.Exclude, d.IgnoreFiles, d.Skip = in.exclude, in.ignore, own
		d.OneFileSystem, d.ExcludeCaches = in.oneFS, in.caches
		d.Pages = in.pages
		sources[i] = d
	}
	if len(sources) == 1 {
		return sources[0]
	}
	return source.Join(sources...)
}

// copyStdin copies standard input to w, until ctx ends.
func (a *app) copyStdin(ctx context.Context, w io.Writer) error {
	type piece struct {
		p   []byte
		err error
	}
	pieces := make(chan piece)
	done := make(chan struct{})
	defer close(done)
	go func() { // a read that waits cannot be cancelled: this may outlive the call
		for {
			buf := make([]byte, 256<<10)
			n, err := a.stdin.Read(buf)
			select {
			case pieces <- piece{buf[:n], err}:
			case <-done:
				return
			}
			if err != nil {
				return
			}
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case piece := <-pieces:
			if _, err := w.Write(piece.p); err != nil {
				return err
			}
			if errors.Is(piece.err, io.EOF) {
				return nil
			}
			if piece.err != nil {
				return fmt.Errorf("standard input: %w", piece.err)
			}
		}
	}
}

// runProducer runs a command whose output is copied to w. It gets no
// passphrase, and SIGTERM when ctx ends.
func (a *app) runProducer(ctx context.Context, w io.Writer, argv []string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...) //nolint:gosec // the user's own command
	cmd.Env = a.childEnv()
	cmd.Stdin = a.stdin
	cmd.Stdout = w
	stderr, done := a.out.lines()
	defer done()
	cmd.Stderr = stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("command %s: %w", printable(filepath.Base(argv[0])), err)
	}
	return nil
}

// readLines returns the lines of a file that are not empty; "-" is standard
// input.
func (a *app) readLines(name string) ([]string, error) {
	in := a.stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close() // only read
		in = f
	}
	var lines []string
	scan := bufio.NewScanner(in)
	scan.Buffer(nil, 1<<20)
	for scan.Scan() {
		if line := strings.TrimSuffix(scan.Text(), "\r"); line != "" {
			lines = append(lines, line)
		}
	}
	return lines, scan.Err()
}

// backupHint says what to do about an error of a backup, or returns "".
func backupHint(err error, f backupFlags) string {
	switch {
	case errors.Is(err, source.ErrEmptyStream):
		return "a dump that prints nothing has mostly failed; --allow-empty stores it all the same"
	case errors.Is(err, source.ErrSkipped):
		return "this is where cairn keeps its repository, its cache or its state"
	case errors.Is(err, source.ErrSource) && f.onUnreadable == "fail" && f.sqlite == "":
		return "--on-unreadable=skip leaves out what cannot be read, and lists it"
	}
	return hintOf(err)
}
