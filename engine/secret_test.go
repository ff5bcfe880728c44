package engine_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/internal/keys"
	"github.com/cairn-backup/cairn/engine/internal/layout"
)

func newKeyFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := engine.NewKeyFile(path); err != nil {
		t.Fatal(err)
	}
	return path
}

// only returns the objects with other slots than were there.
func only(objects, slots map[backend.Key][]byte) map[backend.Key][]byte {
	out := make(map[backend.Key][]byte)
	for key, object := range objects {
		if !strings.HasPrefix(string(key), string(layout.Slots)) {
			out[key] = object
		}
	}
	maps.Copy(out, slots)
	return out
}

// TestPassphrase stretches a handful of times, which is why it is the only one
// with passphrases.
func TestPassphrase(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	b := mem.New()
	r, err := engine.OpenOrInit(ctx, b, engine.Passphrase("correct horse"), engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := engine.Open(ctx, b, engine.Passphrase("wrong horse"), engine.Options{}); !errors.Is(err, engine.ErrWrongKey) {
		t.Errorf("Open with a wrong passphrase = %v, want ErrWrongKey", err)
	}
	if _, err := engine.Open(ctx, b, engine.KeyFile(newKeyFile(t)), engine.Options{}); !errors.Is(err, engine.ErrWrongKey) {
		t.Errorf("Open with a key file where there is a passphrase = %v, want ErrWrongKey", err)
	}
	for what, s := range map[string]engine.Secret{"empty": engine.Passphrase(""), "nil": nil, "no identity": engine.Identity()} {
		if err := engine.Init(ctx, mem.New(), s, engine.InitOptions{}); !errors.Is(err, keys.ErrNoSecret) {
			t.Errorf("Init with a secret that is %s = %v", what, err)
		}
		if _, err := engine.Open(ctx, b, s, engine.Options{}); !errors.Is(err, keys.ErrNoSecret) {
			t.Errorf("Open with a secret that is %s = %v", what, err)
		}
	}

	// A slot that asks for 4 GiB, alone and beside one that is good.
	all := objects(t, b)
	var slot backend.Key
	var expensive []byte
	for key, object := range all {
		if strings.HasPrefix(string(key), string(layout.Slots)) {
			slot, expensive = key, askFor(t, object, "22")
		}
	}
	alone := storeOf(t, only(all, map[backend.Key][]byte{layout.Slot([16]byte{}): expensive}))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	begin := time.Now()
	_, err = engine.Open(ctx, alone, engine.Passphrase("correct horse"), engine.Options{})
	runtime.ReadMemStats(&after)
	if !errors.Is(err, engine.ErrExpensiveSlot) {
		t.Errorf("Open with an expensive slot = %v", err)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 1<<30 || time.Since(begin) > 10*time.Second {
		t.Errorf("refusing an expensive slot took %v and %d bytes", time.Since(begin), used) // other tests run beside
	}
	both := storeOf(t, only(all, map[backend.Key][]byte{layout.Slot([16]byte{}): expensive, slot: all[slot]}))
	if r, err := engine.Open(ctx, both, engine.Passphrase("correct horse"), engine.Options{}); err != nil {
		t.Errorf("Open with a good slot beside an expensive one = %v", err)
	} else {
		r.Close()
	}
}

// askFor changes the work factor of a passphrase slot.
func askFor(t *testing.T, object []byte, logN string) []byte {
	t.Helper()
	at := bytes.Index(object, []byte("-> scrypt "))
	if at < 0 {
		t.Fatal("no scrypt in the slot")
	}
	end := at + bytes.IndexByte(object[at:], '\n')
	out := bytes.Clone(object[:end-2])
	return append(append(out, logN...), object[end:]...)
}

func TestKeySlots(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	b := mem.New()
	path := newKeyFile(t)
	r, err := engine.OpenOrInit(ctx, b, engine.KeyFile(path), engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	slotsOf := func(r *engine.Repository) (slots []engine.KeySlot) {
		for s, err := range r.Keys(ctx) {
			if err != nil {
				t.Fatal(err)
			}
			slots = append(slots, s)
		}
		return slots
	}
	first := slotsOf(r)[0]
	if first.Label != "first" || first.Type != "x25519" {
		t.Errorf("the first slot is %+v", first)
	}
	if err := r.RemoveKey(ctx, first.ID); !errors.Is(err, engine.ErrLastKey) {
		t.Errorf("RemoveKey of the last = %v", err)
	}
	second, err := r.AddKey(ctx, secret, "second")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.RemoveKey(ctx, ""); err == nil {
		t.Error("RemoveKey of no name succeeded")
	}
	if err := r.RemoveKey(ctx, "nothing"); err == nil {
		t.Error("RemoveKey of an unknown slot succeeded")
	}
	open(t, b, engine.Options{}).Close() // by the second secret
	if err := r.RemoveKey(ctx, first.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := engine.Open(ctx, b, engine.KeyFile(path), engine.Options{}); !errors.Is(err, engine.ErrWrongKey) {
		t.Errorf("Open by a slot that was removed = %v", err)
	}
	if got := slotsOf(r); len(got) != 1 || got[0].ID != second {
		t.Errorf("slots %+v, want %s", got, second)
	}
	for what, content := range map[string]string{"nonsense": "nonsense", "empty": "", "cut": "AGE-SECRET-KEY-1"} {
		bad := filepath.Join(t.TempDir(), what)
		if err := os.WriteFile(bad, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := engine.Open(ctx, b, engine.KeyFile(bad), engine.Options{}); !errors.Is(err, keys.ErrNoSecret) || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("Open with a key file that is %s = %v", what, err)
		}
	}
	if _, err := engine.Open(ctx, b, engine.KeyFile(path+"x"), engine.Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open with a key file that is not there = %v", err)
	}
	if err := engine.NewKeyFile(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("NewKeyFile over a file = %v", err)
	}
}

// TestForeignSlots: slots of other repositories and damaged ones do not keep a
// good one from being found.
func TestForeignSlots(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	_, b := fresh(t)
	_, other := fresh(t)
	all := objects(t, b)
	slots := make(map[backend.Key][]byte)
	var good backend.Key
	for key, object := range all {
		if strings.HasPrefix(string(key), string(layout.Slots)) {
			good = key
			slots[key] = object
			slots[layout.Slot([16]byte{0})] = object[:40]
			slots[layout.Slot([16]byte{1})] = nil
			slots[layout.Slot([16]byte{2})] = make([]byte, 2<<20)
		}
	}
	for key, object := range objects(t, other) {
		if strings.HasPrefix(string(key), string(layout.Slots)) {
			slots[key] = object
		}
	}
	open(t, storeOf(t, only(all, slots)), engine.Options{}).Close()
	delete(slots, good)
	if _, err := engine.Open(ctx, storeOf(t, only(all, slots)), secret, engine.Options{}); !errors.Is(err, engine.ErrCorrupt) || !errors.Is(err, engine.ErrWrongKey) {
		t.Errorf("Open without a good slot = %v", err)
	}
	if _, err := engine.Open(ctx, storeOf(t, only(all, nil)), secret, engine.Options{}); !errors.Is(err, engine.ErrCorrupt) {
		t.Errorf("Open without any slot = %v, want ErrCorrupt", err)
	}
}

func TestNotOurs(t *testing.T) {
	ctx := t.Context()
	_, b := fresh(t)
	all := objects(t, b)
	newer := bytes.Clone(all[layout.Config])
	newer[8] = 2
	for _, c := range []struct {
		name   string
		config []byte
		want   error
		text   string
	}{
		{"restic", random(5, 155), engine.ErrNoRepository, "restic"},
		{"borg", []byte("[repository]\nversion = 1\nsegments_per_dir = 1000\n"), engine.ErrNoRepository, "borg"},
		{"text", []byte("hello\nworld\n"), engine.ErrNoRepository, ""},
		{"empty", nil, engine.ErrCorrupt, ""},
		{"newer", newer, engine.ErrNewerFormat, ""},
		{"a record", all[layout.Config][:40], engine.ErrCorrupt, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := storeOf(t, map[backend.Key][]byte{layout.Config: c.config})
			_, err := engine.Open(ctx, store, secret, engine.Options{})
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("Open = %v, want %v with %q", err, c.want, c.text)
			}
			if err := engine.Init(ctx, store, secret, engine.InitOptions{}); !errors.Is(err, c.want) {
				t.Errorf("Init = %v, want %v", err, c.want)
			}
			if _, err := engine.OpenOrInit(ctx, store, secret, engine.Options{}); err == nil {
				t.Error("OpenOrInit made a repository over something else")
			}
			if len(objects(t, store)) != 1 {
				t.Error("something was written")
			}
		})
	}
	if _, err := engine.Open(ctx, mem.New(), secret, engine.Options{}); !errors.Is(err, engine.ErrNoRepository) {
		t.Errorf("Open of nothing = %v", err)
	}
	if err := engine.Init(ctx, b, secret, engine.InitOptions{}); !errors.Is(err, engine.ErrExists) {
		t.Errorf("Init over a repository = %v", err)
	}
	// A log whose config is gone is nothing to init over.
	r, b := fresh(t)
	backUp(t, r, renamed(write(t, someFiles())), engine.BackupOptions{})
	lost := objects(t, b)
	delete(lost, layout.Config)
	if _, err := engine.OpenOrInit(ctx, storeOf(t, lost), secret, engine.Options{}); !errors.Is(err, engine.ErrCorrupt) {
		t.Errorf("OpenOrInit of a repository without config = %v, want ErrCorrupt", err)
	}
}

// TestSecretsAreSilent: no secret prints itself.
func TestSecretsAreSilent(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []any{engine.Passphrase("hunter2"), engine.Identity(id)} {
		for _, text := range []string{fmt.Sprint(s), fmt.Sprintf("%+v", s), fmt.Sprintf("%#v", s), fmt.Sprintf("%s", s)} {
			if strings.Contains(text, "hunter2") || strings.Contains(text, "AGE-SECRET") {
				t.Errorf("a secret prints as %q", text)
			}
		}
	}
}
