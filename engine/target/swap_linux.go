package target

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// swapFiles exchanges two names in one step.
func swapFiles(a, b string) error {
	err := again(func() error { return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE) })
	return renameError(a, err)
}

// moveFile renames, unless something is there.
func moveFile(from, to string) error {
	err := renameError(to, again(func() error {
		return unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	}))
	if errors.Is(err, errors.ErrUnsupported) {
		return moveChecked(from, to)
	}
	return err
}

func renameError(path string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EOPNOTSUPP):
		err = fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	case errors.Is(err, unix.EXDEV), errors.Is(err, unix.EBUSY):
		err = fmt.Errorf("%w: %w", ErrNotSwappable, err)
	}
	return &fs.PathError{Op: "rename", Path: path, Err: err}
}

// mounts returns the mount points of this process.
func mounts() ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // without /proc nobody knows
	}
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // nothing was written to it
	var points []string
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) > 4 {
			points = append(points, unescapeMount(fields[4]))
		}
	}
	return points, lines.Err()
}

// unescapeMount turns \ooo into the byte that it stands for.
func unescapeMount(s string) string {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if b, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				out.WriteByte(byte(b))
				i += 3
				continue
			}
		}
		out.WriteByte(s[i])
	}
	return out.String()
}

// isMount reports whether a file system is mounted at path.
func isMount(path string) (bool, error) {
	points, err := mounts()
	return slices.Contains(points, path), err
}

// mountsBelow returns the mount points in the tree at path.
func mountsBelow(path string) ([]string, error) {
	points, err := mounts()
	var below []string
	for _, p := range points {
		if strings.HasPrefix(p, strings.TrimSuffix(path, "/")+"/") {
			below = append(below, p)
		}
	}
	return below, err
}

// mayReplace returns why the user may not rename the target.
func mayReplace(at swapPlace, fi fs.FileInfo) error {
	if err := unix.Faccessat(unix.AT_FDCWD, at.dir, unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
		return fmt.Errorf("directory %s may not be written: %w", at.dir, err)
	}
	var above unix.Stat_t
	if err := unix.Stat(at.dir, &above); err != nil {
		return err
	}
	uid := os.Geteuid()
	if fi == nil || uid == 0 || above.Mode&unix.S_ISVTX == 0 || int(above.Uid) == uid {
		return nil
	}
	if owner, _ := ownerIDs(fi); owner != uid {
		return fmt.Errorf("directory %s lets only the owner of %s rename it", at.dir, at.base)
	}
	return nil
}

// usersOf returns the other processes that have the file at path open, or files
// below it, as far as the user may see them. Processes in containers that see
// the files at another path are found for a single file only.
func usersOf(path string) ([]string, error) {
	target, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return nil, nil //nolint:nilerr // without /proc nobody knows
	}
	var users []string
	for _, p := range processes {
		pid, err := strconv.Atoi(p.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if file := openFile(pid, path, target); file != "" {
			users = append(users, fmt.Sprintf("process %d (%s): %s", pid, processName(pid), file))
		}
	}
	return users, nil
}

// openFile returns a file that a process has open in the target; "" if it has
// none, is gone, or belongs to someone else.
func openFile(pid int, path string, target fs.FileInfo) string {
	dir := "/proc/" + strconv.Itoa(pid) + "/fd"
	fds, err := os.ReadDir(dir)
	if err != nil {
		return ""
	}
	for _, fd := range fds {
		at := filepath.Join(dir, fd.Name())
		to, err := os.Readlink(at)
		if err != nil || !strings.HasPrefix(to, "/") {
			continue
		}
		if to == path || strings.HasPrefix(to, path+"/") && !strings.HasSuffix(to, " (deleted)") {
			return to
		}
		if target.IsDir() {
			continue
		}
		if fi, err := os.Stat(at); err == nil && os.SameFile(fi, target) {
			return to
		}
	}
	return ""
}

func processName(pid int) string {
	name, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
	if err != nil {
		return "?"
	}
	return strconv.QuoteToGraphic(strings.TrimSpace(string(name)))
}
