package local

import (
	"errors"

	"golang.org/x/sys/windows"
)

func isNoSpace(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL) ||
		errors.Is(err, windows.ERROR_DISK_QUOTA_EXCEEDED)
}

func isReadOnly(err error) bool { return errors.Is(err, windows.ERROR_WRITE_PROTECT) }

// isUnavailable is about shares whose server is away and disks that were
// pulled out, and about files that a virus scanner holds open.
func isUnavailable(err error) bool {
	for _, e := range []error{
		windows.ERROR_BAD_NETPATH, windows.ERROR_NETNAME_DELETED, windows.ERROR_UNEXP_NET_ERR,
		windows.ERROR_NETWORK_UNREACHABLE, windows.ERROR_NOT_READY, windows.ERROR_SHARING_VIOLATION,
		windows.ERROR_SEM_TIMEOUT,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// isNoMethod says whether err means that the file system does not have a way
// of publishing, as FAT has no links.
func isNoMethod(err error) bool {
	return errors.Is(err, windows.ERROR_NOT_SUPPORTED) || errors.Is(err, windows.ERROR_INVALID_FUNCTION) ||
		errors.Is(err, windows.ERROR_CALL_NOT_IMPLEMENTED)
}

// isNoLink is isNoMethod for CreateHardLink.
func isNoLink(err error) bool {
	return isNoMethod(err) || errors.Is(err, windows.ERROR_TOO_MANY_LINKS)
}
