// Package wire is how stored structures become bytes: deterministic CBOR for
// small structures that grow over the years, and a hand-written binary form
// for the large ones. Both have exactly one accepted encoding for a value;
// whatever deviates from it is refused with ErrMalformed.
package wire

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// ErrMalformed is wrapped by every error that is about the bytes decoded.
var ErrMalformed = errors.New("malformed encoding")

const (
	// maxNesting is how deep arrays and maps may lie in each other. The
	// deepest structure of format 1 (a checkpoint) has 6 levels.
	maxNesting = 16
	// maxElements bounds an array or map. The decoder compares counts with
	// the bytes that are left before it allocates; this is for arithmetic.
	maxElements = 1 << 26
)

// Raw is one CBOR item left encoded, for structures that are decoded in two
// steps: first a type number, then what belongs to it. A Raw that is decoded
// owns its bytes. An empty Raw cannot be decoded again, so fields of this type
// are either always set or tagged omitempty.
type Raw = cbor.RawMessage

// Marshal returns the deterministic CBOR encoding of v (RFC 8949, section
// 4.2.1: shortest forms, map keys in bytewise order, definite lengths). Nil
// and empty slices and maps encode alike, since they mean the same. Pointers
// and interfaces that are nil must be tagged omitempty: null is not accepted
// by Unmarshal. Structures use small integer keys, so that they can grow:
//
//	type slot struct {
//		ID    []byte `cbor:"1,keyasint"`
//		Label string `cbor:"2,keyasint,omitempty"`
//	}
func Marshal(v any) ([]byte, error) {
	opts := cbor.CoreDetEncOptions()
	opts.NilContainers = cbor.NilContainerAsEmpty
	opts.TagsMd = cbor.TagsForbidden
	mode, err := opts.EncMode()
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	p, err := mode.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	return p, nil
}

// Unmarshal decodes p, which must be the encoding that Marshal gives for the
// value, into v, a pointer to a zero value. Duplicate and unknown keys,
// indefinite lengths, tags, trailing bytes, more than 16 levels of nesting and
// every form but the deterministic one are errors that wrap ErrMalformed; v is
// then undefined. Unmarshal does not retain p.
func Unmarshal(p []byte, v any) error {
	mode, err := cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		MaxNestedLevels:   maxNesting,
		MaxArrayElements:  maxElements,
		MaxMapPairs:       maxElements,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		UTF8:              cbor.UTF8RejectInvalid,
		FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
	}.DecMode()
	if err != nil {
		return fmt.Errorf("decode %T: %w", v, err)
	}
	if err := mode.Unmarshal(p, v); err != nil {
		return fmt.Errorf("decode %T: %w: %w", v, ErrMalformed, err)
	}
	// The library accepts integers longer than needed, unsorted keys, nulls
	// and byte strings that do not fill their array. Encoding again is the
	// one test that leaves no second form for any type.
	again, err := Marshal(v)
	if err != nil {
		return fmt.Errorf("decode %T: %w: %w", v, ErrMalformed, err)
	}
	if !bytes.Equal(p, again) {
		return fmt.Errorf("decode %T: %w: not in deterministic form", v, ErrMalformed)
	}
	return nil
}
