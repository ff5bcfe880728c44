package chunk

import (
	"errors"
	"fmt"
)

const (
	// windowSize is the number of bytes that decide about a cut.
	windowSize = 64
	// maxChunk bounds Profile.Max and so the memory of a Splitter.
	maxChunk = 8 << 20
	// maxBits: with more bits a cut is expected only beyond maxChunk.
	maxBits = 23
)

// ErrProfile is returned by [Profile.Validate] and [NewSplitter] for sizes that
// cannot be used.
var ErrProfile = errors.New("unusable chunk profile")

// A Profile says how large chunks are. It is part of what a repository stores:
// chunks cut by different profiles rarely equal one another.
type Profile struct {
	// Name is a label for people. It does not change boundaries.
	Name string
	// Min is the least length of a chunk in bytes, save the last one of a
	// stream: more than 64, less than Max.
	Min int
	// Max is the greatest length of a chunk in bytes: at most 8 MiB.
	Max int
	// Bits is the number of low bits of the digest that must be zero at a cut,
	// 1 to 23. On random data the mean length is about Min + 2^Bits, and less
	// where Max comes before. Zeros are cut at Min.
	Bits uint8
}

// General returns the profile for data of every kind: the default. Its sizes
// are chosen by the figures in docs/adr/0001-chunk-sizes.md.
func General() Profile {
	return Profile{Name: "general", Min: 24 << 10, Max: 96 << 10, Bits: 14}
}

// Validate returns nil if p can be used, else an error that is [ErrProfile] and
// tells everything that is wrong.
func (p Profile) Validate() error {
	var errs []error
	if p.Min <= windowSize {
		errs = append(errs, fmt.Errorf("min is %d bytes, want more than %d", p.Min, windowSize))
	}
	if p.Max <= p.Min {
		errs = append(errs, fmt.Errorf("max is %d bytes, want more than min, %d", p.Max, p.Min))
	}
	if p.Max > maxChunk {
		errs = append(errs, fmt.Errorf("max is %d bytes, want at most %d", p.Max, maxChunk))
	}
	if p.Bits < 1 || p.Bits > maxBits {
		errs = append(errs, fmt.Errorf("%d bits, want 1 to %d", p.Bits, maxBits))
	}
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrProfile, errors.Join(errs...))
}
