//go:build linux && (amd64 || arm64)

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A tracer follows the system calls of a process, all threads of it, that change
// files below a directory, and kills it before one of them. Calls are counted as
// they come, whichever thread makes them; strace counts each thread by itself.
// Nothing else of this program may wait for child processes meanwhile.
type tracer struct {
	below string // the directory
	kill  int    // which call the process does not live to make; 0: none

	group sync.WaitGroup
	calls []string // that were made; read it after wait
}

// ptrace makes a request that package unix has no function for.
func ptrace(request, tid int, addr, data uintptr) error {
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, uintptr(request), uintptr(tid), addr, data, 0, 0) //nolint:gosec // no negative numbers
	if errno != 0 {
		return errno
	}
	return nil
}

// attach starts to follow a process, and returns when all its threads are.
func (tr *tracer) attach(t *testing.T, pid int) {
	t.Helper()
	ready := make(chan error, 1)
	tr.group.Go(func() {
		runtime.LockOSThread() // only the thread that attached may go on; it ends with this function
		first, err := seize(pid)
		if err != nil {
			ready <- err
			return
		}
		tr.follow(pid, first, func() { ready <- nil })
	})
	if err := <-ready; err != nil {
		t.Skipf("processes cannot be traced here: %v", err)
	}
}

// wait returns when the process has ended.
func (tr *tracer) wait() { tr.group.Wait() }

// seize attaches to every thread of a process, and to those that they make.
func seize(pid int) (map[int]bool, error) {
	seized := make(map[int]bool)
	for again := true; again; {
		again = false
		tasks, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/task")
		if err != nil {
			return nil, err
		}
		for _, task := range tasks {
			tid, err := strconv.Atoi(task.Name())
			if err != nil || seized[tid] {
				continue
			}
			err = ptrace(unix.PTRACE_SEIZE, tid, 0, unix.PTRACE_O_TRACECLONE|unix.PTRACE_O_TRACESYSGOOD)
			if errors.Is(err, unix.ESRCH) {
				continue // it has ended
			}
			if err != nil && !errors.Is(err, unix.EPERM) || err != nil && len(seized) == 0 {
				return nil, fmt.Errorf("thread %d: %w", tid, err)
			}
			// EPERM: a thread that we follow made it meanwhile.
			seized[tid], again = true, true
			if err == nil {
				err = unix.PtraceInterrupt(tid)
			}
			if err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.EPERM) {
				return nil, fmt.Errorf("interrupt thread %d: %w", tid, err)
			}
		}
	}
	return seized, nil
}

// follow lets the process go on from stop to stop until it has ended. It calls
// ready when every thread of first has stopped once.
func (tr *tracer) follow(pid int, first map[int]bool, ready func()) {
	for {
		var status unix.WaitStatus
		tid, err := unix.Wait4(-1, &status, unix.WALL|unix.WNOTHREAD, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return // there is none any more
		}
		if tid == pid && !status.Stopped() {
			return // which is told when no thread is left
		}
		signal := 0
		switch stop := status.StopSignal(); {
		case !status.Stopped():
		case stop == unix.SIGTRAP|0x80:
			tr.call(pid, tid)
		case int(status)>>16 == 0: // not an event of ptrace
			signal = int(stop)
		}
		if status.Stopped() {
			_ = unix.PtraceSyscall(tid, signal) // it may be dead by now
		}
		if len(first) > 0 {
			if delete(first, tid); len(first) == 0 {
				ready()
			}
		}
	}
}

// A syscallInfo is struct ptrace_syscall_info of Linux, as far as an entry fills it.
type syscallInfo struct {
	op   uint8 // 1: an entry
	_    [3]uint8
	arch uint32
	_, _ uint64
	nr   uint64
	args [6]uint64
}

const ptraceGetSyscallInfo = 0x420e

// call looks at a thread that is stopped at a system call.
func (tr *tracer) call(pid, tid int) {
	var info syscallInfo
	size := unsafe.Sizeof(info)
	if err := ptrace(ptraceGetSyscallInfo, tid, size, uintptr(unsafe.Pointer(&info))); err != nil || info.op != 1 {
		return
	}
	name := changing(&info)
	if name == "" || !tr.concerns(pid, tid, &info) {
		return
	}
	tr.calls = append(tr.calls, name)
	if len(tr.calls) == tr.kill {
		_ = unix.Kill(pid, unix.SIGKILL) // before the call is made
	}
}

// changing returns the name of a call that changes files, or "".
func changing(info *syscallInfo) string {
	switch info.nr {
	case unix.SYS_OPENAT:
		if info.args[2]&unix.O_CREAT != 0 {
			return "create"
		}
	case unix.SYS_WRITE, unix.SYS_PWRITE64:
		return "write"
	case unix.SYS_FSYNC, unix.SYS_FDATASYNC, unix.SYS_SYNCFS:
		return "fsync"
	case unix.SYS_MKDIRAT:
		return "mkdir"
	case unix.SYS_UNLINKAT:
		return "unlink"
	case unix.SYS_RENAMEAT:
		return "rename"
	case unix.SYS_RENAMEAT2:
		return "rename2"
	case unix.SYS_LINKAT:
		return "link"
	case unix.SYS_FTRUNCATE, unix.SYS_FALLOCATE:
		return "size"
	case unix.SYS_FCHMOD, unix.SYS_FCHMODAT, unix.SYS_FCHOWN, unix.SYS_FCHOWNAT, unix.SYS_UTIMENSAT:
		return "attributes"
	}
	return ""
}

// concerns reports whether a call is about something below the directory.
func (tr *tracer) concerns(pid, tid int, info *syscallInfo) bool {
	path := ""
	switch info.nr {
	case unix.SYS_WRITE, unix.SYS_PWRITE64, unix.SYS_FSYNC, unix.SYS_FDATASYNC, unix.SYS_SYNCFS, unix.SYS_FTRUNCATE, unix.SYS_FALLOCATE, unix.SYS_FCHMOD, unix.SYS_FCHOWN:
	default: // a directory, or AT_FDCWD, and a name
		path = textAt(tid, uintptr(info.args[1]))
	}
	if !filepath.IsAbs(path) {
		dir, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, int32(info.args[0]))) //nolint:gosec // a descriptor
		if err != nil {
			return false
		}
		path = filepath.Join(dir, path)
	}
	return strings.HasPrefix(path, tr.below+"/")
}

// textAt returns the string that a stopped thread has at an address.
func textAt(tid int, addr uintptr) string {
	var p [256]byte
	n, _ := unix.PtracePeekData(tid, addr, p[:]) // what comes after the string may not be there
	text, _, _ := strings.Cut(string(p[:n]), "\x00")
	return text
}
