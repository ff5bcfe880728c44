package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The golden repository was made when format 1 was fixed and is never made
// again: what this test restores today it must restore for ever. In
// testdata/golden:
//
//	repo-v1/           the repository
//	repo-v1.key        a key that opens it
//	repo-v1.passphrase a passphrase that opens it
//	repo-v1.json       what is in it: every snapshot with its tree
//
// go test -run TestGolden -update-golden, as root on Linux, made them, from the
// tree that goldenTree describes. It refuses to make them again.
var updateGolden = flag.Bool("update-golden", false, "make the golden repository, if there is none")

const golden = "../../testdata/golden/repo-v1"

// A goldenSnapshot is what is known of one snapshot.
type goldenSnapshot struct {
	ID     string            `json:"id"`
	Listed map[string]any    `json:"listed"` // as cairn snapshots --json shows it
	Tree   tree              `json:"tree"`   // as it was restored, by root
	Cat    map[string]string `json:"cat"`    // the first bytes of some files, quoted
}

type goldenListing struct {
	Snapshots []goldenSnapshot `json:"snapshots"`
	Keys      []string         `json:"keys"` // label and type, sorted
}

func TestGolden(t *testing.T) {
	if *updateGolden {
		makeGolden(t)
	}
	t.Parallel()
	text, err := os.ReadFile(golden + ".json")
	must(t, err)
	var want goldenListing
	must(t, json.Unmarshal(text, &want))
	p := newProgram(t)
	copyTree(t, golden, p.repo) // opening it may write a checkpoint
	p.key, err = filepath.Abs(golden + ".key")
	must(t, err)

	p.exits(0, "check", "--read-data")
	passphrase := p
	passphrase.key = ""
	passphrase.extra = []string{envPassphraseFile + "=" + strings.TrimSuffix(p.key, ".key") + ".passphrase"}
	for name, by := range map[string]program{"key file": p, "passphrase": passphrase} {
		if got := goldenListed(t, by); !jsonEqual(t, got, want.Snapshots) {
			t.Errorf("by %s: the snapshots are\n%v, want those of %s.json", name, got, golden)
		}
		if got := goldenKeys(t, by); !slices.Equal(got, want.Keys) {
			t.Errorf("by %s: the keys are %q, want %q", name, got, want.Keys)
		}
	}
	for _, s := range want.Snapshots {
		tr := s.Tree
		if os.Geteuid() != 0 {
			tr = unprivileged(tr)
		}
		target := filepath.Join(t.TempDir(), "restored")
		p.exits(0, "restore", s.ID, "--target", target)
		t.Cleanup(func() { _ = os.Chmod(filepath.Join(target, "closed"), 0o755) }) // not all have it
		got := readTree(t, target)
		if os.Geteuid() != 0 {
			got = unprivileged(got)
		}
		if _, ok := tr["."]; !ok {
			delete(got, ".") // the snapshot does not hold the directory itself
		}
		tr.compare(t, "snapshot "+s.ID, got)
		for path, first := range s.Cat {
			if r := p.exits(0, "cat", s.ID, path); !strings.HasPrefix(quoted(r.stdout), first) {
				t.Errorf("cat %s %s begins with %.100q, want %s", s.ID, path, r.stdout, first)
			}
		}
	}
	// It is no museum piece: today's program goes on with it.
	fillTree(t, p.at("src"), 100_000, 77)
	p.restores(p.backup(p.at("src")), readTree(t, p.at("src")))
	p.exits(0, "check", "--read-data")
}

// goldenListed returns what the program lists, without trees.
func goldenListed(t *testing.T, p program) []goldenSnapshot {
	t.Helper()
	doc := lastDocument[struct{ Snapshots []map[string]any }](t, p.exits(0, "snapshots", "--json"))
	var all []goldenSnapshot
	for _, s := range doc.Snapshots {
		all = append(all, goldenSnapshot{ID: fmt.Sprint(s["id"]), Listed: s})
	}
	return all
}

// jsonEqual compares ids and listings. What newer programs list besides does not
// count.
func jsonEqual(t *testing.T, got, want []goldenSnapshot) bool {
	t.Helper()
	if len(got) != len(want) {
		return false
	}
	for i := range want {
		for key, value := range want[i].Listed {
			a, err := json.Marshal(value)
			must(t, err)
			b, err := json.Marshal(got[i].Listed[key])
			must(t, err)
			if !bytes.Equal(a, b) {
				t.Logf("snapshot %d: %s is %s, want %s", i, key, b, a)
				return false
			}
		}
	}
	return true
}

func goldenKeys(t *testing.T, p program) []string {
	t.Helper()
	doc := lastDocument[struct{ Keys []keyJSON }](t, p.exits(0, "key", "list", "--json"))
	var all []string
	for _, k := range doc.Keys {
		all = append(all, k.Label+" "+k.Type)
	}
	slices.Sort(all)
	return all
}

// unprivileged leaves out what only root restores.
func unprivileged(tr tree) tree {
	return tr.only(func(_ string, e *entry) bool {
		e.UID, e.GID, e.Mode = 0, 0, "0"+strings.TrimLeft(e.Mode, "0")[max(0, len(strings.TrimLeft(e.Mode, "0"))-3):]
		e.Xattrs = maps.Clone(e.Xattrs)
		maps.DeleteFunc(e.Xattrs, func(name, _ string) bool { return !strings.HasPrefix(name, "user.") })
		if len(e.Xattrs) == 0 {
			e.Xattrs = nil
		}
		return e.Kind != "char" && e.Kind != "block"
	})
}

// makeGolden makes the golden repository. It never makes it again.
func makeGolden(t *testing.T) {
	needRoot(t, "owners and devices belong to it")
	if exists(golden) {
		t.Fatalf("%s is there: it is frozen", golden)
	}
	p := newProgram(t)
	p.extra = []string{"LOGNAME=golden", "USER=golden"}
	src := p.at("src")
	goldenTree(t, src)
	p.exits(0, "init", "--label", "key file")
	pass := p.at("passphrase")
	must(t, os.WriteFile(pass, []byte("correct horse battery staple\n"), 0o600))
	p.exits(0, "key", "add", "--new-passphrase-file", pass, "--label", "passphrase")
	trees := make(map[string]tree)
	step := 0
	snap := func(args ...string) string {
		step++
		args = append(args, "--host", "golden.example", "--time", fmt.Sprintf("2026-01-02T03:04:%02d.123456789Z", step))
		return p.backup(args...)
	}
	keep := func(id string) {
		target := p.at("restored-" + id)
		p.exits(0, "restore", id, "--target", target)
		trees[id] = readTree(t, target)
	}

	first := snap(src, "--tag", "daily", "--tag", "caf\u00e9")
	keep(first)
	readTree(t, src).compare(t, "the first snapshot", trees[first])
	goldenChange(t, src)
	second := snap(src, "--exclude", "*.skip")
	keep(second)
	roots := snap(src, filepath.Join(src, "dir", "hello.txt"))
	stream := snap("--stdin", "dump.sql", "--", "sh", "-c", "i=0; while [ $i -lt 9000 ]; do echo INSERT INTO t VALUES $i; i=$((i+1)); done")
	for _, id := range []string{roots, stream} {
		keep(id)
		delete(trees[id], ".") // it is in neither
	}
	deleted := snap(src, "--host", "elsewhere")
	p.exits(0, "delete", deleted)
	p.exits(0, "tag", first, "--add", "kept", "--remove", "daily", "--pin")
	p.exits(0, "check", "--read-data")

	want := goldenListing{Keys: goldenKeys(t, p), Snapshots: goldenListed(t, p)}
	for i := range want.Snapshots {
		s := &want.Snapshots[i]
		s.Tree = trees[s.ID]
	}
	want.Snapshots[0].Cat = map[string]string{"dir/hello.txt": "hello, world", "big.txt": "line 000000"}
	text, err := json.MarshalIndent(want, "", "")
	must(t, err)
	must(t, os.MkdirAll(filepath.Dir(golden), 0o755))
	must(t, os.WriteFile(golden+".json", append(text, '\n'), 0o644))
	for from, to := range map[string]string{p.key: golden + ".key", pass: golden + ".passphrase"} {
		data, err := os.ReadFile(from)
		must(t, err)
		must(t, os.WriteFile(to, data, 0o644))
	}
	copyTree(t, p.repo, golden)
}

// goldenTree makes a tree with every kind of entry and every form of content.
func goldenTree(t *testing.T, dir string) {
	t.Helper()
	at := func(name string) string { return filepath.Join(dir, name) }
	file := func(name string, mode uint32, content []byte) {
		must(t, os.MkdirAll(filepath.Dir(at(name)), 0o755))
		must(t, os.WriteFile(at(name), content, 0o600))
		must(t, unix.Chmod(at(name), mode))
	}
	file("dir/hello.txt", 0o644, []byte("hello, world\n")) // inline
	file("dir/empty", 0o600, nil)
	file("dir/sub/readonly", 0o444, []byte("r"))
	must(t, os.Mkdir(at("empty dir"), 0o700))
	must(t, os.Mkdir(at("sticky"), 0o755))
	must(t, unix.Chmod(at("sticky"), 0o1777))
	file("noise.bin", 0o640, noise(100_000, 1)) // extents
	var lines bytes.Buffer
	for i := range 40_000 {
		fmt.Fprintf(&lines, "line %06d %x\n", i, i*i%9973)
	}
	file("big.txt", 0o644, lines.Bytes()) // a list of extents
	file("repeat", 0o644, bytes.Repeat([]byte{0xff}, 3*mib))
	file("period", 0o644, bytes.Repeat(noise(4096, 2), 300))
	file("sparse", 0o644, nil)
	f, err := os.OpenFile(at("sparse"), os.O_WRONLY, 0)
	must(t, err)
	for _, off := range []int64{mib, 5 * mib} {
		_, err := f.WriteAt(noise(10_000, byte(off>>20)), off)
		must(t, err)
	}
	must(t, f.Truncate(16*mib))
	must(t, f.Close())
	for i := range 200 { // more than one page of a list
		file(fmt.Sprintf("many/file-%03d.txt", i), 0o644, fmt.Appendf(nil, "this is number %d", i))
	}
	file("n\xffot utf-8 \n", 0o644, []byte("name"))
	file(strings.Repeat("n", 255), 0o644, []byte("long"))
	must(t, os.Symlink("dir/hello.txt", at("link")))
	must(t, os.Symlink("/nowhere/\xfe", at("dangling")))
	file("hard1", 0o644, []byte("linked"))
	must(t, os.Link(at("hard1"), at("dir/hard2")))
	must(t, unix.Mkfifo(at("fifo"), 0o640))
	must(t, unix.Lsetxattr(at("dir/hello.txt"), "user.comment", []byte("a \x00 comment"), 0))
	must(t, unix.Lsetxattr(at("empty dir"), "user.dir", []byte("d"), 0))
	must(t, unix.Lsetxattr(at("big.txt"), "system.posix_acl_access", acl, 0))
	file("setuid", 0o4755, []byte("#!/bin/sh\n"))
	file("theirs", 0o600, []byte("t"))
	must(t, os.Lchown(at("theirs"), 1234, 5678))
	file("theirs setgid", 0o600, []byte("t"))
	must(t, os.Lchown(at("theirs setgid"), 4321, 8765))
	must(t, unix.Chmod(at("theirs setgid"), 0o2751))
	must(t, os.Lchown(at("link"), 7, 8))
	must(t, unix.Mknod(at("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(t, unix.Mknod(at("disk"), unix.S_IFBLK|0o640, int(unix.Mkdev(259, 70000))))
	must(t, os.MkdirAll(at("closed"), 0o755))
	file("closed/in", 0o400, []byte("x"))
	must(t, unix.Chmod(at("closed"), 0o555))
	setTimes(t, dir)
}

// acl lets user 12345 read, besides owner, group and others.
var acl = []byte{
	2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 0x39, 0x30, 0, 0, 4, 0, 4, 0, 255, 255, 255, 255,
	0x10, 0, 4, 0, 255, 255, 255, 255, 0x20, 0, 4, 0, 255, 255, 255, 255,
}

// goldenChange makes the second state of the tree.
func goldenChange(t *testing.T, dir string) {
	t.Helper()
	at := func(name string) string { return filepath.Join(dir, name) }
	data, err := os.ReadFile(at("big.txt"))
	must(t, err)
	copy(data[len(data)/2:], "CHANGED IN THE MIDDLE")
	must(t, os.WriteFile(at("big.txt"), data, 0o644))
	must(t, os.Remove(at("noise.bin")))
	must(t, os.RemoveAll(at("dir/sub")))
	must(t, os.WriteFile(at("new.txt"), noise(30_000, 3), 0o644))
	must(t, os.WriteFile(at("left out.skip"), []byte("skipped"), 0o644))
	must(t, unix.Chmod(at("hard1"), 0o600))
	must(t, os.Remove(at("link")))
	must(t, os.Mkdir(at("link"), 0o755)) // another kind
	setTimes(t, dir)
}

// setTimes gives every entry a time of its own, before 1970 and after 2106 among
// them.
func setTimes(t *testing.T, dir string) {
	t.Helper()
	var paths []string
	must(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		paths = append(paths, path)
		return err
	}))
	slices.Reverse(paths) // directories after what is in them
	for i, path := range paths {
		sec := int64(1_000_000_000 + i*86_400)
		switch i % 50 {
		case 7:
			sec = -1
		case 8:
			sec = 5_000_000_000
		}
		ts := []unix.Timespec{{Sec: time.Now().Unix()}, {Sec: sec, Nsec: int64(i*1_234_567) % 1e9}}
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, ts, unix.AT_SYMLINK_NOFOLLOW))
	}
}

// noise returns bytes that do not compress, always the same ones.
func noise(n int, seed byte) []byte {
	p := make([]byte, n)
	x := uint64(seed)*0x9e3779b97f4a7c15 + 1
	for i := range p {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		p[i] = byte(x >> 32)
	}
	return p
}
