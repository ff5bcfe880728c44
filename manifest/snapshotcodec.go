package manifest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/chunk/wire"
)

// Limits of a summary and of the rest of a snapshot. Lengths are in bytes.
const (
	MaxText    = 1024    // of each text of a summary, and of a note
	MaxTags    = 1000    // tags
	MaxTag     = 256     // of a tag
	MaxLabels  = 1000    // labels
	MaxLabel   = 256     // of the key of a label
	MaxValue   = 4096    // of the value of a label
	MaxSummary = 1 << 20 // of an encoded summary
	MaxRoots   = 10_000  // roots
	MaxPath    = 1 << 16 // of a path
	MaxReason  = 1024    // of the reason why something is missing
	MaxMissing = 10_000  // entries in Snapshot.Missing; Stats.Missing counts all
	MaxBody    = 8 << 20 // of an encoded body
)

// maxMissingBytes bounds the paths and reasons in Snapshot.Missing, so that with
// its roots a snapshot stays below MaxBody.
const maxMissingBytes = 4 << 20

// The CBOR forms. Texts are text strings; what may hold any bytes is a byte
// string. What is empty is left out, but for what every snapshot has.
type (
	timeForm struct {
		_    struct{} `cbor:",toarray"`
		Sec  int64
		Nsec uint32
	}

	statsForm struct {
		Files   uint64 `cbor:"1,keyasint,omitempty"`
		Dirs    uint64 `cbor:"2,keyasint,omitempty"`
		Others  uint64 `cbor:"3,keyasint,omitempty"`
		Bytes   uint64 `cbor:"4,keyasint,omitempty"`
		Read    uint64 `cbor:"5,keyasint,omitempty"`
		New     uint64 `cbor:"6,keyasint,omitempty"`
		Stored  uint64 `cbor:"7,keyasint,omitempty"`
		Missing uint64 `cbor:"8,keyasint,omitempty"`
		Changed uint64 `cbor:"9,keyasint,omitempty"`
	}

	summaryForm struct {
		ID       []byte            `cbor:"1,keyasint"`
		Start    timeForm          `cbor:"2,keyasint"`
		End      timeForm          `cbor:"3,keyasint"`
		Kind     string            `cbor:"4,keyasint"`
		Name     string            `cbor:"5,keyasint,omitempty"`
		Host     string            `cbor:"6,keyasint,omitempty"`
		User     string            `cbor:"7,keyasint,omitempty"`
		Platform string            `cbor:"8,keyasint,omitempty"`
		Program  string            `cbor:"9,keyasint,omitempty"`
		Version  string            `cbor:"10,keyasint,omitempty"`
		Tags     []string          `cbor:"11,keyasint,omitempty"`
		Labels   map[string]string `cbor:"12,keyasint,omitempty"`
		Parent   []byte            `cbor:"13,keyasint,omitempty"`
		Complete bool              `cbor:"14,keyasint,omitempty"`
		Stats    statsForm         `cbor:"15,keyasint"`
		Group    []byte            `cbor:"16,keyasint"`
		Depth    uint32            `cbor:"17,keyasint,omitempty"`
		Began    *timeForm         `cbor:"18,keyasint,omitempty"`
	}

	rootForm struct {
		_    struct{} `cbor:",toarray"`
		Path []byte
		Name []byte
	}

	missingForm struct {
		_      struct{} `cbor:",toarray"`
		Path   []byte
		Reason string
	}

	bodyForm struct {
		ID      []byte        `cbor:"1,keyasint"`
		Roots   []rootForm    `cbor:"2,keyasint"`
		Missing []missingForm `cbor:"3,keyasint,omitempty"`
		Tree    []byte        `cbor:"4,keyasint"`
	}
)

// EncodeSummary returns the deterministic encoding of s, without Pinned and
// Note. A summary beyond the limits, or with text that is not UTF-8, is an
// ErrInvalid. Order of tags is kept.
func EncodeSummary(s Summary) ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("summary: %w: %w", ErrInvalid, err)
	}
	f := summaryForm{
		ID: s.ID[:], Start: timeForm{Sec: s.Start.Sec, Nsec: s.Start.Nsec}, End: timeForm{Sec: s.End.Sec, Nsec: s.End.Nsec},
		Kind: string(s.Kind), Name: s.Name, Host: s.Host, User: s.User, Platform: s.Platform,
		Program: s.Program, Version: s.Version, Tags: s.Tags, Labels: s.Labels,
		Complete: s.Complete, Stats: statsForm(s.Stats), Group: s.Group[:], Depth: s.Depth,
	}
	if !s.Parent.IsZero() {
		f.Parent = s.Parent[:]
	}
	if !s.Began.IsZero() {
		f.Began = &timeForm{Sec: s.Began.Sec, Nsec: s.Began.Nsec}
	}
	p, err := wire.Marshal(f)
	if err != nil {
		return nil, fmt.Errorf("summary: %w", err)
	}
	if len(p) > MaxSummary {
		return nil, fmt.Errorf("summary of %d bytes, want at most %d: %w", len(p), MaxSummary, ErrInvalid)
	}
	return p, nil
}

// DecodeSummary decodes what EncodeSummary returned. Anything else is an
// ErrMalformed. It does not retain p.
func DecodeSummary(p []byte) (Summary, error) {
	s, err := decodeSummary(p)
	if err == nil {
		err = s.check()
	}
	if err != nil {
		return Summary{}, fmt.Errorf("summary: %w: %w", ErrMalformed, err)
	}
	return s, nil
}

func decodeSummary(p []byte) (Summary, error) {
	if len(p) > MaxSummary {
		return Summary{}, fmt.Errorf("%d bytes, want at most %d", len(p), MaxSummary)
	}
	var f summaryForm
	if err := wire.Unmarshal(p, &f); err != nil {
		return Summary{}, err
	}
	s := Summary{
		Start: Time{Sec: f.Start.Sec, Nsec: f.Start.Nsec}, End: Time{Sec: f.End.Sec, Nsec: f.End.Nsec},
		Kind: Kind(f.Kind), Name: f.Name, Host: f.Host, User: f.User, Platform: f.Platform,
		Program: f.Program, Version: f.Version, Tags: f.Tags, Labels: f.Labels,
		Complete: f.Complete, Stats: Stats(f.Stats), Depth: f.Depth,
	}
	if len(f.ID) != len(s.ID) || len(f.Group) != len(s.Group) {
		return Summary{}, errors.New("id or group that is not 16 bytes")
	}
	copy(s.ID[:], f.ID)
	copy(s.Group[:], f.Group)
	if f.Began != nil {
		s.Began = Time{Sec: f.Began.Sec, Nsec: f.Began.Nsec}
		if s.Began.IsZero() {
			return Summary{}, errors.New("a begin that is stored though it is not known")
		}
	}
	if f.Parent != nil {
		copy(s.Parent[:], f.Parent)
		if len(f.Parent) != len(s.Parent) || s.Parent.IsZero() {
			return Summary{}, errors.New("parent that is no id")
		}
	}
	return s, nil
}

// check reports why s cannot be stored.
func (s *Summary) check() error {
	if s.ID.IsZero() {
		return errors.New("no id")
	}
	if s.Kind == "" {
		return errors.New("no kind")
	}
	if !s.Start.valid() || !s.End.valid() || !s.Began.valid() {
		return errors.New("time with a second of nanoseconds or more")
	}
	for _, text := range []string{string(s.Kind), s.Name, s.Host, s.User, s.Platform, s.Program, s.Version} {
		if err := checkText(text, MaxText); err != nil {
			return err
		}
	}
	if err := checkTags(s.Tags); err != nil {
		return err
	}
	if len(s.Labels) > MaxLabels {
		return fmt.Errorf("%d labels, want at most %d", len(s.Labels), MaxLabels)
	}
	for key, value := range s.Labels {
		if err := errors.Join(checkText(key, MaxLabel), checkText(value, MaxValue)); err != nil {
			return fmt.Errorf("label %q: %w", key, err)
		}
	}
	return nil
}

func checkTags(tags []string) error {
	if len(tags) > MaxTags {
		return fmt.Errorf("%d tags, want at most %d", len(tags), MaxTags)
	}
	for _, tag := range tags {
		if err := checkText(tag, MaxTag); err != nil {
			return fmt.Errorf("tag: %w", err)
		}
		if tag == "" {
			return errors.New("empty tag")
		}
	}
	return nil
}

func checkText(s string, limit int) error {
	switch {
	case len(s) > limit:
		return fmt.Errorf("text of %d bytes, want at most %d", len(s), limit)
	case !utf8.ValidString(s):
		return fmt.Errorf("text %q is not UTF-8", s)
	}
	return nil
}

// EncodeBody returns the deterministic encoding of what only a reader of the
// data may know of s: roots, what is missing, and the tree. It names s.ID, so
// that it cannot pass for another snapshot's. A body beyond the limits is an
// ErrInvalid; LimitMissing keeps within them.
func EncodeBody(s Snapshot) ([]byte, error) {
	if err := s.checkBody(); err != nil {
		return nil, fmt.Errorf("snapshot %s: %w: %w", s.ID, ErrInvalid, err)
	}
	f := bodyForm{ID: s.ID[:], Tree: s.Tree[:]}
	for _, r := range s.Roots {
		f.Roots = append(f.Roots, rootForm{Path: []byte(r.Path), Name: []byte(r.Name)})
	}
	for _, m := range s.Missing {
		f.Missing = append(f.Missing, missingForm{Path: []byte(m.Path), Reason: m.Reason})
	}
	p, err := wire.Marshal(f)
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", s.ID, err)
	}
	if len(p) > MaxBody {
		return nil, fmt.Errorf("snapshot %s: body of %d bytes, want at most %d: %w", s.ID, len(p), MaxBody, ErrInvalid)
	}
	return p, nil
}

// DecodeBody decodes what EncodeBody returned for the snapshot with this
// summary, and returns the whole snapshot. Anything else, and the body of a
// snapshot with another ID, is an ErrMalformed. It does not retain p.
func DecodeBody(summary Summary, p []byte) (Snapshot, error) {
	s, err := decodeBody(p)
	if err == nil && s.ID != summary.ID {
		err = fmt.Errorf("body of snapshot %s", s.ID)
	}
	if err == nil {
		err = s.checkBody()
	}
	if err != nil {
		return Snapshot{}, fmt.Errorf("snapshot %s: %w: %w", summary.ID, ErrMalformed, err)
	}
	s.Summary = summary
	return s, nil
}

func decodeBody(p []byte) (Snapshot, error) {
	if len(p) > MaxBody {
		return Snapshot{}, fmt.Errorf("%d bytes, want at most %d", len(p), MaxBody)
	}
	var f bodyForm
	if err := wire.Unmarshal(p, &f); err != nil {
		return Snapshot{}, err
	}
	var s Snapshot
	if len(f.ID) != len(s.ID) || len(f.Tree) != len(s.Tree) {
		return Snapshot{}, errors.New("id or tree of a wrong length")
	}
	s.ID, s.Tree = ID(f.ID), chunk.ID(f.Tree)
	for _, r := range f.Roots {
		s.Roots = append(s.Roots, Root{Path: string(r.Path), Name: string(r.Name)})
	}
	for _, m := range f.Missing {
		s.Missing = append(s.Missing, Missing{Path: string(m.Path), Reason: m.Reason})
	}
	return s, nil
}

// checkBody reports why the body of s cannot be stored.
func (s *Snapshot) checkBody() error {
	switch {
	case s.ID.IsZero():
		return errors.New("no id")
	case s.Tree.IsZero():
		return errors.New("no tree")
	case len(s.Roots) > MaxRoots:
		return fmt.Errorf("%d roots, want at most %d", len(s.Roots), MaxRoots)
	case len(s.Missing) > MaxMissing:
		return fmt.Errorf("%d missing entries listed, want at most %d", len(s.Missing), MaxMissing)
	}
	names := make(map[string]bool, len(s.Roots))
	for _, r := range s.Roots {
		if err := checkName(r.Name); err != nil {
			return fmt.Errorf("root: %w", err)
		}
		if len(r.Path) > MaxPath || names[r.Name] {
			return fmt.Errorf("root %q: name used twice, or a path of more than %d bytes", r.Name, MaxPath)
		}
		names[r.Name] = true
	}
	for _, m := range s.Missing {
		if len(m.Path) > MaxPath {
			return fmt.Errorf("missing: path of more than %d bytes", MaxPath)
		}
		if err := checkText(m.Reason, MaxReason); err != nil {
			return fmt.Errorf("missing %q: %w", m.Path, err)
		}
	}
	return nil
}

// LimitMissing returns as many of the entries, from the first on, as a snapshot
// lists, with reasons cut to MaxReason bytes of UTF-8. Stats.Missing is for how
// many there were. The result is new.
func LimitMissing(all []Missing) []Missing {
	var list []Missing
	room := maxMissingBytes
	for _, m := range all {
		m.Reason = cutText(m.Reason, MaxReason)
		room -= len(m.Path) + len(m.Reason)
		if room < 0 || len(list) == MaxMissing {
			break
		}
		if len(m.Path) <= MaxPath {
			list = append(list, m)
		}
	}
	return list
}

// cutText makes s UTF-8 of at most limit bytes.
func cutText(s string, limit int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "") // drops what is left of a rune cut in two
	}
	return s
}

// Validate reports, as an ErrInvalid, tags or a note beyond the limits of a
// summary.
func (a Annotation) Validate() error {
	err := errors.Join(checkTags(a.Add), checkTags(a.Remove))
	if a.Note != nil {
		err = errors.Join(err, checkText(*a.Note, MaxText))
	}
	if err != nil {
		return fmt.Errorf("annotation: %w: %w", ErrInvalid, err)
	}
	return nil
}

// Apply returns s as a changes it. Tags keep their order; new ones come last, as
// long as there are fewer than MaxTags. Neither s nor a is modified or shared.
func (a Annotation) Apply(s Summary) Summary {
	tags := slices.DeleteFunc(slices.Clone(s.Tags), func(tag string) bool {
		return slices.Contains(a.Remove, tag) && !slices.Contains(a.Add, tag)
	})
	for _, tag := range a.Add {
		if !slices.Contains(tags, tag) && len(tags) < MaxTags {
			tags = append(tags, tag)
		}
	}
	s.Tags = tags
	if a.Pin != nil {
		s.Pinned = *a.Pin
	}
	if a.Note != nil {
		s.Note = *a.Note
	}
	return s
}
