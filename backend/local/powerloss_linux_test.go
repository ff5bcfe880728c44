package local

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cairn-backup/cairn/backend"
)

// TestPowerLoss cuts the power of a real ext4: the kernel is told to drop the
// file system as it is (EXT4_IOC_SHUTDOWN, without flushing its journal), and
// it is mounted again. What Put and Delete promised must be there. The control
// is a file that was not fsynced: if that survives, the test shows nothing.
func TestPowerLoss(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can mount")
	}
	image := filepath.Join(t.TempDir(), "ext4.img")
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
			t.Skipf("%s: %v: %s", name, err, out)
		}
	}
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, 32<<20)); err != nil {
		t.Fatal(err)
	}
	run("mkfs.ext4", "-q", image)
	mnt := t.TempDir()
	run("mount", "-o", "loop", image, mnt)
	mounted := true
	t.Cleanup(func() {
		if mounted {
			_ = unix.Unmount(mnt, unix.MNT_DETACH)
		}
	})

	stored := make(map[backend.Key]bool)
	for round, m := range methods {
		b := New(filepath.Join(mnt, "repo"))
		b.method.Store(int32(m.m))
		if err := b.Init(t.Context()); err != nil {
			t.Fatal(err)
		}
		for i := range 10 {
			key := backend.Key(fmt.Sprintf("packs/%d/%d", round*10+i, i))
			if err := b.Put(t.Context(), key, content(key)); err != nil {
				t.Fatal(err)
			}
			stored[key] = true
			if i%5 == 3 { // so a Put is the last thing that happens
				if err := b.Delete(t.Context(), key); err != nil {
					t.Fatal(err)
				}
				stored[key] = false
			}
		}
		if got := method(b.method.Load()); got != m.m {
			t.Errorf("ext4 lacks %s", m.name)
		}
		control := filepath.Join(mnt, fmt.Sprintf("control-%d", round))
		if err := os.WriteFile(control, []byte("not fsynced"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(b.Close(), shutdown(mnt), unix.Unmount(mnt, 0)); err != nil {
			t.Fatal(err)
		}
		mounted = false
		run("mount", "-o", "loop", image, mnt)
		mounted = true
		if data, err := os.ReadFile(control); err == nil && len(data) > 0 {
			t.Errorf("the control survived: the power was not cut")
		}

		b = New(filepath.Join(mnt, "repo"))
		for key, want := range stored {
			data, err := backend.ReadAll(t.Context(), b, key, 1<<20)
			if want && !bytes.Equal(data, content(key)) || !want && !errors.Is(err, backend.ErrNotExist) {
				t.Errorf("round %d (%s): %s = %d bytes, %v; want it there: %t", round, m.name, key, len(data), err, want)
			}
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
}

// shutdown is EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH.
func shutdown(mnt string) error {
	dir, err := os.Open(mnt)
	if err != nil {
		return err
	}
	defer dir.Close()
	return unix.IoctlSetPointerInt(int(dir.Fd()), 0x8004587d, 2)
}
