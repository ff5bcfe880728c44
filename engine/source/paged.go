package source

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
)

// ProfilePage is the Info.Profile of a view whose files consist of pages of 4 KiB
// that are changed in place, such as images of disks. See [Paged]; of some files of
// a directory DirSource.Pages says the same.
const ProfilePage = "page"

// Paged is what an open file may implement if it can tell that it consists of pages
// that are changed in place, as a database does. Of such a file a backup stores the
// pages that changed, and not the chunks that hold them; what is inserted in front of
// other data makes it store all that comes behind.
type Paged interface {
	// Grain returns in which units the file is compared with how it was, in
	// bytes: a power of two from 512 to 65,536, at most the size of a page. 0 says
	// that the file has no pages.
	Grain() (int, error)
}

const (
	// minPaged is from which size on it matters how a database is stored, in bytes.
	minPaged = 1 << 20
	// DatabaseGrain is the grain of databases: less than a page, since an update of a row changes little
	// of its page; see docs/adr/0007-page-profile.md.
	DatabaseGrain = 1 << 10
	// imageGrain is a block of a file system.
	imageGrain = 4 << 10
)

// Grain returns the grain of an open file of a view, and 0 if it has no pages.
func Grain(info Info, file io.Reader) (int, error) {
	if p, ok := file.(Paged); ok {
		if grain, err := p.Grain(); grain > 0 || err != nil {
			return grain, err
		}
	}
	if info.Profile == ProfilePage {
		return imageGrain, nil
	}
	return 0, nil
}

// grainOf looks at the begin of a file for what databases begin with: SQLite
// (https://sqlite.org/fileformat.html, section 1.3) and bbolt (package
// go.etcd.io/bbolt/internal/common, type Meta).
func grainOf(file io.ReaderAt, size int64) (int, error) {
	var head [100]byte
	if size < minPaged {
		return 0, nil
	}
	if _, err := file.ReadAt(head[:], 0); err != nil {
		if errors.Is(err, io.EOF) {
			err = nil // it shrank
		}
		return 0, err
	}
	page := 0
	switch {
	case bytes.HasPrefix(head[:], []byte("SQLite format 3\x00")):
		if page = int(binary.BigEndian.Uint16(head[16:])); page == 1 {
			page = 1 << 16
		}
	case binary.LittleEndian.Uint32(head[16:]) == 0xED0CDAED && binary.LittleEndian.Uint32(head[20:]) == 2:
		page = int(binary.LittleEndian.Uint32(head[24:]))
	}
	if page < 512 || page > 1<<16 || page&(page-1) != 0 || size%int64(page) != 0 {
		return 0, nil
	}
	return DatabaseGrain, nil
}
