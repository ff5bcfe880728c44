package target_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/engine/target"
	"github.com/cairn-backup/cairn/manifest"
)

// TestTarOfEverything writes a tree with all that a directory can hold, and has
// GNU tar unpack it.
func TestTarOfEverything(t *testing.T) {
	gnu, err := exec.LookPath("tar")
	if err != nil {
		t.Skip("no tar here")
	}
	if os.Geteuid() != 0 {
		t.Skip("owners and devices take root")
	}
	m := maker{t, t.TempDir()}
	m.plain()
	for _, name := range []string{strings.Repeat("long", 60), "caf\xe9 \xff\xfe", "new\nline", "-rf", "a=b", `back\slash`} {
		must(t, os.WriteFile(filepath.Join(m.dir, name), []byte(name), 0o640))
		must(t, os.Symlink(strings.Repeat("x/", 500)+"\xff", filepath.Join(m.dir, name+"l")))
	}
	deep := m.dir
	for range 12 {
		deep = filepath.Join(deep, strings.Repeat("d", 30))
		must(t, os.Mkdir(deep, 0o755))
	}
	must(t, os.WriteFile(filepath.Join(deep, "f"), []byte("deep"), 0o600))
	must(t, os.Chtimes(filepath.Join(deep, "f"), time.Unix(-5, 7), time.Unix(-5, 7)))
	var stream bytes.Buffer
	if skipped := copyTree(t, source.Dir(m.dir), target.Tar(&stream)); skipped != (target.Skipped{}) {
		t.Errorf("skipped %+v", skipped)
	}
	dst := t.TempDir()
	cmd := exec.CommandContext(t.Context(), gnu, "--xattrs", "--xattrs-include=*", "--numeric-owner", "--warning=no-timestamp", "-xpf", "-", "-C", dst)
	cmd.Stdin = &stream
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("tar: %v\n%s", err, out)
	}
	compare(t, read(t, source.Dir(dst)), read(t, source.Dir(m.dir)))
}

func tarWriter(t *testing.T, w io.Writer) target.Writer {
	t.Helper()
	out, err := target.Tar(w).Begin(t.Context(), target.Need{})
	must(t, err)
	return out
}

// TestTarOrder: what would spoil the stream is refused.
func TestTarOrder(t *testing.T) {
	w := tarWriter(t, io.Discard)
	n := node(manifest.File)
	n.Size = 10
	f, err := w.Create(t.Context(), "f", n)
	must(t, err)
	if err := w.Make(t.Context(), "d", node(manifest.Dir)); !errors.Is(err, target.ErrOrder) {
		t.Errorf("Make while a file is open = %v", err)
	}
	if _, err := f.WriteAt([]byte("xx"), 4); err != nil {
		t.Error(err)
	}
	for off, want := range map[int64]error{0: target.ErrOrder, 5: target.ErrOrder, 9: target.ErrTarget} {
		if _, err := f.WriteAt([]byte("xx"), off); !errors.Is(err, want) {
			t.Errorf("WriteAt(%d) = %v, want %v", off, err, want)
		}
	}
	if err := w.Commit(t.Context()); !errors.Is(err, target.ErrOpenFiles) {
		t.Errorf("Commit = %v", err)
	}
	must(t, f.Close())
	for _, path := range []string{"..", "a/../b", "/x", "a//b", ".", "a\x00b"} {
		if err := put(t.Context(), w, path, "x"); !errors.Is(err, target.ErrPath) {
			t.Errorf("Create(%q) = %v", path, err)
		}
	}
	for _, kind := range []manifest.NodeKind{manifest.Socket, manifest.File, 99} {
		if err := w.Make(t.Context(), "x", node(kind)); !errors.Is(err, target.ErrUnsupported) {
			t.Errorf("Make of %s = %v", kind, err)
		}
	}
	must(t, w.Commit(t.Context()))
	if err := w.Make(t.Context(), "d", node(manifest.Dir)); !errors.Is(err, target.ErrDone) {
		t.Errorf("Make after Commit = %v", err)
	}
}

// FuzzTar writes an entry of anything, and reads it back: it comes out the same,
// or it was refused and the stream holds the others.
func FuzzTar(f *testing.F) {
	f.Add("name", "target", "user.x", []byte("value"), []byte("content"), uint32(0o644), int64(1e9), uint32(5), uint64(0x500000001), uint8(0))
	f.Add("\xff\xfe", "\n", "a=b%", []byte{0, 1}, []byte{}, uint32(0o7777), int64(-1), uint32(999999999), uint64(1)<<63, uint8(3))
	f.Add(strings.Repeat("x", 300), "", "", []byte{}, []byte(" "), uint32(0), int64(1)<<40, uint32(1), uint64(0), uint8(1))
	f.Fuzz(func(t *testing.T, name, to, key string, value, content []byte, mode uint32, sec int64, nsec uint32, device uint64, kind uint8) {
		kinds := []manifest.NodeKind{manifest.File, manifest.Dir, manifest.Symlink, manifest.FIFO, manifest.CharDevice, manifest.BlockDevice}
		n := manifest.Node{
			Kind: kinds[int(kind)%len(kinds)], Mode: mode & 0o7777, UID: mode, GID: nsec, Owner: to, Target: to, Device: device,
			MTime: manifest.Time{Sec: sec % (1 << 40), Nsec: nsec % 1e9},
		}
		if key != "" {
			n.Xattrs = []manifest.Xattr{{Name: key, Value: value}}
		}
		var stream bytes.Buffer
		w := tarWriter(t, &stream)
		made := false
		if n.Kind == manifest.File {
			n.Size = uint64(len(content))
			if out, err := w.Create(t.Context(), name, n); err == nil {
				made = true
				_, err := out.WriteAt(content, 0)
				must(t, errors.Join(err, out.Close()))
			}
		} else {
			made = name != "" && w.Make(t.Context(), name, n) == nil
		}
		must(t, put(t.Context(), w, "last", "content"))
		must(t, w.Commit(t.Context()))
		r := tar.NewReader(&stream)
		if made {
			h, err := r.Next()
			must(t, err)
			data, err := io.ReadAll(r)
			must(t, err)
			wantName := name
			if n.Kind == manifest.Dir {
				wantName += "/"
			}
			got := h.PAXRecords["SCHILY.xattr."+strings.NewReplacer("%", "%25", "=", "%3D").Replace(key)]
			if h.Name != wantName || h.Mode != int64(n.Mode) || h.Uid != int(n.UID) || h.Gid != int(n.GID) || !h.ModTime.Equal(n.MTime.Time()) ||
				n.Kind == manifest.Symlink && h.Linkname != to || n.Kind == manifest.File && !bytes.Equal(data, content) ||
				key != "" && got != string(value) {
				t.Errorf("%q: %+v came out as %+v, %q", name, n, h, data)
			}
		}
		if h, err := r.Next(); err != nil || h.Name != "last" {
			t.Errorf("then there is %v, %v", h, err)
		}
	})
}
