package target_test

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/engine/target"
)

// a maker makes a tree to copy, in dir.
type maker struct {
	t   *testing.T
	dir string
}

func (m maker) at(name string) string { return filepath.Join(m.dir, name) }

func (m maker) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m maker) file(name, content string, mode uint32) {
	m.t.Helper()
	m.must(os.WriteFile(m.at(name), []byte(content), 0o600))
	m.must(unix.Chmod(m.at(name), mode))
}

func (m maker) mkdir(name string, mode uint32) {
	m.t.Helper()
	m.must(os.Mkdir(m.at(name), 0o700))
	m.must(unix.Chmod(m.at(name), mode))
}

func (m maker) time(name string, sec, nsec int64) {
	m.t.Helper()
	mtime, err := unix.TimeToTimespec(time.Unix(sec, nsec))
	m.must(err)
	ts := []unix.Timespec{{Sec: 1, Nsec: 1}, mtime}
	m.must(unix.UtimesNanoAt(unix.AT_FDCWD, m.at(name), ts, unix.AT_SYMLINK_NOFOLLOW))
}

// acl returns the bytes of a POSIX ACL that lets user uid read.
func acl(uid uint32) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{1, 6, 1<<32 - 1}, {2, 4, uid}, {4, 4, 1<<32 - 1}, {0x10, 4, 1<<32 - 1}, {0x20, 0, 1<<32 - 1}} {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

// plain makes what every user can make.
func (m maker) plain() {
	m.t.Helper()
	m.mkdir("empty", 0o755)
	m.mkdir("closed", 0o755)
	m.file("closed/inside", "x", 0o400)
	m.time("closed/inside", 1e9, 1)
	m.must(os.Symlink("nowhere", m.at("closed/link")))
	m.must(unix.Chmod(m.at("closed"), 0o555))
	m.mkdir("sticky", 0o1777)
	m.file("zero", "", 0o644)
	m.file("suid", "#!", 0o4755)
	m.file("sgid", "#!", 0o2711)
	m.file("readonly", "r", 0o444)
	m.file("group", "g", 0o666)
	m.file("none", "n", 0o000)
	m.must(unix.Chmod(m.at("none"), 0o600))
	m.file("hard1", "linked", 0o640)
	m.must(os.Mkdir(m.at("z"), 0o750))
	m.must(os.Link(m.at("hard1"), m.at("z/hard2")))
	m.must(os.Link(m.at("hard1"), m.at("hard3")))
	m.must(os.Symlink("hard1", m.at("symlink")))
	m.must(os.Symlink(strings.Repeat("long/", 400), m.at("longlink")))
	m.must(os.Symlink("bytes\xff\xfe", m.at("link\xff")))
	m.must(unix.Mkfifo(m.at("fifo"), 0o622))
	m.must(unix.Chmod(m.at("fifo"), 0o622))
	m.file("bytes\xff\xfe\n\x01", "not UTF-8", 0o644)
	m.file(" leading and trailing ", "spaces", 0o644)
	m.file(strings.Repeat("n", 255), "long name", 0o644)
	m.file("-rf", "dash", 0o644)
	m.time("symlink", -1, 999999999)
	m.time("hard1", 4e9, 123456789)
	m.time("fifo", 1<<33, 5)
	m.time("empty", 5, 0)
	m.sparse()
	m.xattrs()
	m.time("closed", 77, 7)
	m.time(".", 1234567890, 987654321)
}

// sparse makes files whose holes are in front, between and behind.
func (m maker) sparse() {
	m.t.Helper()
	f, err := os.Create(m.at("sparse"))
	m.must(err)
	for _, off := range []int64{1 << 20, 8 << 20} {
		_, err = f.WriteAt([]byte(strings.Repeat("data", 1<<14)), off)
		m.must(err)
	}
	m.must(f.Truncate(64 << 20))
	m.must(f.Close())
	m.file("hole", "", 0o600)
	m.must(os.Truncate(m.at("hole"), 1<<30))
	// Reading a gigabyte of zeros as content takes long.
	m.must(os.Truncate(m.at("hole"), 1<<22))
}

func (m maker) xattrs() {
	m.t.Helper()
	m.file("xattr", "x", 0o444)
	m.must(unix.Chmod(m.at("xattr"), 0o644))
	for name, value := range map[string]string{"user.b": "\x00binary\xff", "user.a": "", "user.long": strings.Repeat("v", 1000)} {
		err := unix.Lsetxattr(m.at("xattr"), name, []byte(value), 0)
		if errors.Is(err, unix.ENOTSUP) {
			m.t.Log("no extended attributes here")
			return
		}
		m.must(err)
	}
	m.must(unix.Chmod(m.at("xattr"), 0o444))
	m.must(unix.Lsetxattr(m.at("empty"), "user.dir", []byte("d"), 0))
	m.file("acl", "a", 0o640)
	if err := unix.Lsetxattr(m.at("acl"), "system.posix_acl_access", acl(12345), 0); err != nil {
		m.t.Logf("no ACLs here: %v", err)
		return
	}
	m.must(unix.Lsetxattr(m.at("z"), "system.posix_acl_default", acl(54321), 0))
}

// owned makes what only the superuser can make.
func (m maker) owned() {
	m.t.Helper()
	m.file("theirs", "t", 0o600)
	m.must(os.Lchown(m.at("theirs"), 65534, 12))
	m.file("theirs-suid", "t", 0o600)
	m.must(os.Lchown(m.at("theirs-suid"), 4242, 4243))
	m.must(unix.Chmod(m.at("theirs-suid"), 0o6755))
	m.mkdir("their dir", 0o700)
	m.must(os.Lchown(m.at("their dir"), 1, 1))
	m.must(unix.Chmod(m.at("their dir"), 0o2775))
	m.must(os.Symlink("x", m.at("their link")))
	m.must(os.Lchown(m.at("their link"), 7, 8))
	for name, dev := range map[string]uint64{"null": unix.Mkdev(1, 3), "big": unix.Mkdev(1000, 70000)} {
		if err := unix.Mknod(m.at(name), unix.S_IFCHR|0o666, int(dev)); err != nil {
			m.t.Logf("mknod: %v", err)
			continue
		}
		m.must(unix.Mknod(m.at(name+"-block"), unix.S_IFBLK|0o640, int(dev)))
	}
	m.must(os.Link(m.at("null"), m.at("null2")))
	if err := unix.Lsetxattr(m.at("theirs"), "trusted.x", []byte("t"), 0); err != nil {
		m.t.Logf("trusted: %v", err)
	}
	if err := unix.Lsetxattr(m.at("symlink"), "trusted.link", []byte("t"), 0); err != nil {
		m.t.Logf("trusted on link: %v", err)
	}
	// cap_net_bind_service, version 2
	if err := unix.Lsetxattr(m.at("suid"), "security.capability", []byte("\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0); err != nil {
		m.t.Logf("capability: %v", err)
	}
}

func TestRoundTrip(t *testing.T) {
	defer unix.Umask(unix.Umask(0o077)) // what the user's umask is must not show
	m := maker{t, t.TempDir()}
	m.must(unix.Chmod(m.dir, 0o751))
	m.plain()
	if os.Geteuid() == 0 {
		m.owned()
	} else {
		t.Log("not root: no owners, no devices, no trusted attributes")
	}
	want := read(t, source.Dir(m.dir))
	dst := filepath.Join(t.TempDir(), "new")
	if s := copyTree(t, source.Dir(m.dir), target.Dir(dst)); s != (target.Skipped{}) {
		t.Errorf("skipped %+v", s)
	}
	got := read(t, source.Dir(dst))
	compare(t, got, want)
	for _, name := range []string{"sparse", "hole"} {
		if got.holes[name] != want.holes[name] {
			t.Errorf("%s has %d ranges of data, want %d", name, got.holes[name], want.holes[name])
		}
	}
	var a, b syscall.Stat_t
	m.must(syscall.Stat(m.at("sparse"), &a))
	m.must(syscall.Stat(filepath.Join(dst, "sparse"), &b))
	if b.Blocks > a.Blocks+16 {
		t.Errorf("the sparse file takes %d blocks, %d before", b.Blocks, a.Blocks)
	}
}
