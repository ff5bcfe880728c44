package target

import (
	"errors"
	"io/fs"

	"golang.org/x/sys/windows"
)

// ownerIDs knows no numbers here.
func ownerIDs(fs.FileInfo) (uid, gid int) { return -1, -1 }

// inodeNumber returns the file's index, which it keeps when it is renamed.
func inodeNumber(path string, _ fs.FileInfo) (uint64, error) {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return 0, err
	}
	const share = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE | windows.FILE_SHARE_DELETE
	const flags = windows.FILE_FLAG_BACKUP_SEMANTICS | windows.FILE_FLAG_OPEN_REPARSE_POINT
	h, err := windows.CreateFile(name, 0, share, nil, windows.OPEN_EXISTING, flags, 0)
	if err != nil {
		return 0, err
	}
	var info windows.ByHandleFileInformation
	err = errors.Join(windows.GetFileInformationByHandle(h, &info), windows.CloseHandle(h))
	return uint64(info.FileIndexHigh)<<32 | uint64(info.FileIndexLow), err
}

// syncPath does nothing: directories cannot be synchronised on this system,
// which journals them.
func syncPath(string) error { return nil }

// A swapLock is not needed here: what another process has open cannot be
// renamed.
type swapLock struct{}

func lockSwap(swapPlace) (*swapLock, error) { return &swapLock{}, nil }

func (*swapLock) release() error { return nil }
