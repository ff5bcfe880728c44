package target

import (
	"io/fs"
	"os"
)

// forbidden are the bytes that no name can hold, or that would make it a path
// or a stream of another file.
const forbidden = "\x00\\:"

// ownerOf makes every owner equal: they are not restored on this system.
func ownerOf(fs.FileInfo) (uid, gid uint32) { return 0, 0 }

// syncFolder does nothing: directories cannot be synchronised on this system,
// which journals them.
func syncFolder(*os.Root) error { return nil }
