package keys

import (
	"errors"
	"fmt"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/chunk/seal"
	"github.com/cairn-backup/cairn/chunk/wire"
)

// RepositoryID names a repository: 16 random bytes, in the clear.
type RepositoryID [16]byte

// String returns 32 hexadecimal digits.
func (id RepositoryID) String() string { return fmt.Sprintf("%x", id[:]) }

// Format is the repository format that this package reads and writes.
const Format = 1

// Config is what the config object holds. Its creation decides an Init.
type Config struct {
	Format       uint64    `cbor:"1,keyasint"`
	Created      int64     `cbor:"2,keyasint"` // Unix seconds; for people
	Profiles     []Profile `cbor:"3,keyasint"`
	SingleWriter bool      `cbor:"4,keyasint"` // the store has no put-if-absent
	Admin        [32]byte  `cbor:"5,keyasint"` // public keys that sign in a role
	Keeper       [32]byte  `cbor:"6,keyasint"`
	Writer       [32]byte  `cbor:"7,keyasint"`
	Features     []string  `cbor:"8,keyasint"` // whoever does not know one refuses the repository
}

// Profile is a chunk.Profile as stored.
type Profile struct {
	Name string `cbor:"1,keyasint"`
	Min  uint64 `cbor:"2,keyasint"`
	Max  uint64 `cbor:"3,keyasint"`
	Bits uint64 `cbor:"4,keyasint"`
}

type configEnvelope struct {
	Repository []byte `cbor:"1,keyasint"`
}

// NewConfig returns the config of a new repository that s opens.
func NewConfig(s *Set, created int64) Config {
	general := chunk.General()
	return Config{
		Format:  Format,
		Created: created,
		Profiles: []Profile{{
			Name: general.Name, Min: uint64(general.Min), Max: uint64(general.Max), Bits: uint64(general.Bits), //nolint:gosec // validated sizes
		}},
		Admin:    s.Admin().Public(),
		Keeper:   s.Keeper().Public(),
		Writer:   s.Writer().Public(),
		Features: []string{},
	}
}

// Profile returns the chunk profile with that name.
func (c Config) Profile(name string) (chunk.Profile, error) {
	for _, p := range c.Profiles {
		if p.Name != name {
			continue
		}
		if p.Min > 1<<30 || p.Max > 1<<30 || p.Bits > 64 {
			return chunk.Profile{}, fmt.Errorf("config: profile %q: sizes out of range: %w", name, seal.ErrDamaged)
		}
		profile := chunk.Profile{Name: p.Name, Min: int(p.Min), Max: int(p.Max), Bits: uint8(p.Bits)}
		if err := profile.Validate(); err != nil {
			return chunk.Profile{}, errors.Join(fmt.Errorf("config: profile %q: %w", name, err), seal.ErrDamaged)
		}
		return profile, nil
	}
	return chunk.Profile{}, fmt.Errorf("config: no chunk profile %q: %w", name, seal.ErrDamaged)
}

// Seal returns the config object of repository id.
func (c Config) Seal(meta seal.Key, id RepositoryID) ([]byte, error) {
	body, err := wire.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	envelope, err := wire.Marshal(configEnvelope{Repository: id[:]})
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	_, object, err := seal.Object(meta, seal.Template{Kind: seal.KindConfig, Envelope: envelope}, seal.Binding{Repository: id}, body)
	return object, err
}

// ConfigID reads the repository id from the clear part of a config object. The
// errors are those of seal.ParseHeader.
func ConfigID(object []byte) (RepositoryID, error) {
	h, _, err := seal.ParseHeader(object)
	if err != nil {
		return RepositoryID{}, fmt.Errorf("config: %w", err)
	}
	var e configEnvelope
	if h.Kind != seal.KindConfig {
		return RepositoryID{}, fmt.Errorf("config: the object is of kind %d: %w", h.Kind, seal.ErrDamaged)
	}
	if err := wire.Unmarshal(h.Envelope, &e); err != nil || len(e.Repository) != 16 {
		return RepositoryID{}, fmt.Errorf("config: envelope: %w", seal.ErrDamaged)
	}
	return RepositoryID(e.Repository), nil
}

// OpenConfig opens a config object. A config that asks for a format or a
// feature that this package does not know is seal.ErrNewerFormat.
func OpenConfig(meta seal.Key, object []byte) (Config, error) {
	id, err := ConfigID(object)
	if err != nil {
		return Config{}, err
	}
	_, parts, err := seal.OpenObject(meta, seal.KindConfig, seal.Binding{Repository: id}, object)
	if err != nil {
		return Config{}, fmt.Errorf("config: %w", err)
	}
	var c Config
	if len(parts) != 1 {
		return Config{}, fmt.Errorf("config: %d parts: %w", len(parts), seal.ErrDamaged)
	}
	if err := wire.Unmarshal(parts[0], &c); err != nil {
		return Config{}, errors.Join(fmt.Errorf("config: %w", err), seal.ErrDamaged)
	}
	if c.Format != Format {
		return Config{}, fmt.Errorf("config: repository format %d: %w", c.Format, seal.ErrNewerFormat)
	}
	if len(c.Features) > 0 {
		return Config{}, fmt.Errorf("config: the repository needs the feature %q: %w", c.Features[0], seal.ErrNewerFormat)
	}
	return c, nil
}
