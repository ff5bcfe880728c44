//go:build unix

package local

import (
	"errors"
	"syscall"
)

func isNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

func isReadOnly(err error) bool { return errors.Is(err, syscall.EROFS) }

// isUnavailable is about network mounts whose server is away and disks that
// were pulled out.
func isUnavailable(err error) bool {
	for _, e := range []error{
		syscall.ESTALE, syscall.ETIMEDOUT, syscall.EHOSTDOWN, syscall.EHOSTUNREACH,
		syscall.ENOTCONN, syscall.ENODEV, syscall.ENXIO, syscall.EMFILE, syscall.ENFILE,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// isNoMethod says whether err means that the file system does not have a way
// of publishing. FAT answers a link with EPERM, old kernels a renameat2 with
// ENOSYS, other file systems a flag they lack with EINVAL, and a kernel that
// does not know O_TMPFILE opens the directory instead: EISDIR.
func isNoMethod(err error) bool {
	for _, e := range []error{syscall.EOPNOTSUPP, syscall.ENOTSUP, syscall.ENOSYS, syscall.EINVAL, syscall.EISDIR} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// isNoLink is isNoMethod for link(2).
func isNoLink(err error) bool {
	return isNoMethod(err) || errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EMLINK)
}

// isNoDirSync says whether err means that directories are not fsynced on this
// file system because there is nothing to wait for: SMB sends each change of a
// directory to its server at once and refuses the fsync.
func isNoDirSync(err error) bool { return isNoMethod(err) }
