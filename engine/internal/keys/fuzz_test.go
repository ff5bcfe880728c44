package keys

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"filippo.io/age"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/chunk/seal"
	"github.com/cairn-backup/cairn/chunk/wire"
)

// identity is the same in every process, or a fuzzer's workers could open
// nothing that another made.
func identity(tb testing.TB) Secret {
	tb.Helper()
	id, err := age.ParseX25519Identity("AGE-SECRET-KEY-1HLPRYSD28MELY2REUJYJXG9MS9PWV6K3Z75WAUAZ78Q7THPRYZTQKRYV4G")
	if err != nil {
		tb.Fatal(err)
	}
	s, err := Identities([]age.Identity{id})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// FuzzOpenSlot: whatever a slot holds it is opened to the key that is in it,
// or refused with an error of a kind that callers tell apart.
func FuzzOpenSlot(f *testing.F) {
	root, repo, secret := Root{1, 2, 3}, RepositoryID{4}, identity(f)
	_, object, err := SealSlot(root, repo, secret, "label")
	if err != nil {
		f.Fatal(err)
	}
	if got, err := OpenSlot(object, repo, secret); err != nil || got != root {
		f.Fatalf("OpenSlot: %v", err)
	}
	f.Add(object)
	f.Add(object[:100])
	f.Add(bytes.Replace(object, []byte("-> X25519 "), []byte("-> scrypt "), 1))
	f.Fuzz(func(t *testing.T, object []byte) {
		got, err := OpenSlot(object, repo, secret)
		switch {
		case err == nil && got != root:
			t.Errorf("OpenSlot made another key of it")
		case err == nil:
		case errors.Is(err, ErrWrongKey), errors.Is(err, ErrExpensiveSlot), errors.Is(err, seal.ErrDamaged),
			errors.Is(err, seal.ErrNotCairn), errors.Is(err, seal.ErrNewerFormat):
		default:
			t.Errorf("OpenSlot = %v", err)
		}
	})
}

// FuzzOpenConfig: the same of a config.
func FuzzOpenConfig(f *testing.F) {
	set, repo := Derive(Root{1}), RepositoryID{4}
	config := NewConfig(set, 12345)
	object, err := config.Seal(set.Meta, repo)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(object)
	f.Add(object[:60])
	f.Add(append(bytes.Clone(object), 0))
	f.Fuzz(func(t *testing.T, changed []byte) {
		c, err := OpenConfig(set.Meta, changed)
		switch {
		case err == nil && !reflect.DeepEqual(c, config):
			t.Errorf("another config opened: %+v", c)
		case err == nil:
		case errors.Is(err, seal.ErrDamaged), errors.Is(err, seal.ErrNotCairn), errors.Is(err, seal.ErrNewerFormat):
		default:
			t.Errorf("OpenConfig = %v", err)
		}
	})
}

// TestConfig: what a config says is checked, also if it is sealed by the right
// key.
func TestConfig(t *testing.T) {
	set, repo := Derive(Root{1}), RepositoryID{4}
	good := NewConfig(set, 12345)
	seals := func(change func(c *Config)) []byte {
		c := good
		c.Profiles = append([]Profile(nil), good.Profiles...)
		change(&c)
		object, err := c.Seal(set.Meta, repo)
		if err != nil {
			t.Fatal(err)
		}
		return object
	}
	object := seals(func(*Config) {})
	c, err := OpenConfig(set.Meta, object)
	if err != nil || c.Created != 12345 || c.Admin != set.Admin().Public() {
		t.Fatalf("OpenConfig = %+v, %v", c, err)
	}
	if id, err := ConfigID(object); err != nil || id != repo {
		t.Errorf("ConfigID = %v, %v", id, err)
	}
	if p, err := c.Profile("general"); err != nil || p != chunk.General() {
		t.Errorf("Profile = %+v, %v", p, err)
	}
	if _, err := c.Profile("page"); !errors.Is(err, seal.ErrDamaged) {
		t.Errorf("Profile of one that is not there = %v", err)
	}
	if _, err := OpenConfig(Derive(Root{2}).Meta, object); !errors.Is(err, seal.ErrDamaged) {
		t.Errorf("OpenConfig with another key = %v", err)
	}
	for name, change := range map[string]func(c *Config){
		"format 2":  func(c *Config) { c.Format = 2 },
		"a feature": func(c *Config) { c.Features = []string{"x"} },
	} {
		if _, err := OpenConfig(set.Meta, seals(change)); !errors.Is(err, seal.ErrNewerFormat) {
			t.Errorf("OpenConfig of %s = %v, want ErrNewerFormat", name, err)
		}
	}
	for name, p := range map[string]Profile{
		"no size": {Name: "general"}, "huge": {Name: "general", Min: 1 << 40, Max: 1 << 50, Bits: 14}, "min above max": {Name: "general", Min: 2000, Max: 1000, Bits: 5},
		"all bits": {Name: "general", Min: 1000, Max: 2000, Bits: 200},
	} {
		c, err := OpenConfig(set.Meta, seals(func(c *Config) { c.Profiles = []Profile{p} }))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Profile("general"); !errors.Is(err, seal.ErrDamaged) {
			t.Errorf("Profile with %s = %v", name, err)
		}
	}
	// A part that is no config, or two of them.
	for _, parts := range [][][]byte{{[]byte("x")}, {{}, {}}} {
		envelope, err := wire.Marshal(configEnvelope{Repository: repo[:]})
		if err != nil {
			t.Fatal(err)
		}
		_, object, err := seal.Object(set.Meta, seal.Template{Kind: seal.KindConfig, Envelope: envelope}, seal.Binding{Repository: repo}, parts...)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := OpenConfig(set.Meta, object); !errors.Is(err, seal.ErrDamaged) {
			t.Errorf("OpenConfig = %v, want ErrDamaged", err)
		}
	}
}

// TestDerive: every key differs from every other, and depends on the root.
func TestDerive(t *testing.T) {
	seen := make(map[[32]byte]bool)
	for i := range byte(3) {
		s := Derive(Root{i})
		for _, k := range [][32]byte{s.Chunk, s.Meta, s.Data(0), s.Data(1), s.Admin(), s.Keeper(), s.Writer(), s.Root()} {
			if seen[k] {
				t.Fatal("two keys are equal")
			}
			seen[k] = true
		}
		if s.Data(0) != Derive(Root{i}).Data(0) {
			t.Error("a key is not the same twice")
		}
	}
}
