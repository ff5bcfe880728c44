package local

import (
	"errors"
	"io"
	"io/fs"
)

// A disk is the calls of a file system that this package is made of, so that
// tests can record them, make each fail, and cut the power between any two.
// Names are slash-separated paths below the root, which is ".". All methods are
// safe for concurrent use, and return the errors of package os.
type disk interface {
	reader

	// makeRoot makes the root, durably, unless it is there.
	makeRoot() error
	// mkdir makes a directory in one that exists.
	mkdir(dir string) error

	// createUnnamed makes a file in dir that has no name yet. It returns
	// errNoMethod if the file system cannot do that; so do the next ones.
	createUnnamed(dir string) (tempFile, error)
	// linkUnnamed names a file of createUnnamed, unless name is taken.
	linkUnnamed(f tempFile, name string) error
	// createTemp makes a file under a name that is not a key.
	createTemp(name string) (tempFile, error)
	// link gives a file a second name, unless that is taken.
	link(from, to string) error
	// rename gives a file another name, unless that is taken.
	rename(from, to string) error

	// syncFile makes what is in a file durable, and syncDir the names in a
	// directory. A failing fsync, as opposed to a failing open, is a
	// *syncError.
	syncFile(name string) error
	syncDir(dir string) error
	// remove removes a file. It may be durable only after syncDir.
	remove(name string) error

	close() error
}

// A reader is the part of a disk that changes nothing.
type reader interface {
	lstat(name string) (fs.FileInfo, error)
	// open opens a file for reading.
	open(name string) (readFile, error)
	// readDir describes what is in dir, in any order; only names for which
	// keep returns true.
	readDir(dir string, keep func(name string) bool) ([]fs.FileInfo, error)
	// sameFile says whether both names lead to one file.
	sameFile(x, y string) bool
}

// A tempFile is a file that is being written.
type tempFile interface {
	io.WriteCloser
	Sync() error
}

// A readFile is a file that is read.
type readFile interface {
	io.ReaderAt
	io.Closer
	Stat() (fs.FileInfo, error)
}

var (
	// errNoMethod is returned where the file system lacks a call.
	errNoMethod = errors.New("file system lacks it")
	// errNoRoot comes with fs.ErrNotExist if it is the root that is missing.
	errNoRoot = errors.New("no such store")
)
