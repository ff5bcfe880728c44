package pages

import "slices"

// A Span is a range of the bytes of a group.
type Span struct{ Off, End int }

const (
	// maxSpans is how many patches a group may have: format 1 allows no more.
	maxSpans = 16
	// coarse is the size in bytes to which patches are rounded where there would
	// be too many: pages of 4 KiB have gaps for eight in a group.
	coarse = 4096
)

// Plan says how a group of length bytes is stored, of which pages of grain bytes
// changed, beside the patches old that it has, in order: those patches that stay,
// by their place in old, and the ranges to write, in order. Neighbouring pages are
// one range, and a patch of which some page changed is written anew as a whole. It
// reports false where more than half of the group would be patched, or the old
// patches do not lie on pages: then the group is written whole.
func Plan(length, grain int, changed []bool, old []Span) (keep []int, write []Span, ok bool) {
	if length%grain != 0 {
		return nil, nil, false
	}
	for i, c := range changed {
		if c {
			write = add(write, Span{i * grain, (i + 1) * grain}, 0)
		}
	}
	for _, o := range old {
		if o.Off%grain != 0 || o.End%grain != 0 {
			return nil, nil, false
		}
		// Old patches do not overlap, so that one never touches another by this.
		if slices.ContainsFunc(write, func(w Span) bool { return w.Off < o.End && o.Off < w.End }) {
			write = add(write, o, 1)
		}
	}
	for i, o := range old {
		if !slices.ContainsFunc(write, func(w Span) bool { return w.Off <= o.Off && o.End <= w.End }) {
			keep = append(keep, i)
		}
	}
	if len(keep)+len(write) > maxSpans {
		all := slices.Clone(write)
		for _, i := range keep {
			all = add(all, old[i], 1)
		}
		keep, write = nil, nil
		for _, s := range all {
			write = add(write, Span{s.Off / coarse * coarse, min((s.End+coarse-1)/coarse*coarse, length)}, 0)
		}
	}
	patched := 0
	for _, i := range keep {
		patched += old[i].End - old[i].Off
	}
	for _, s := range write {
		patched += s.End - s.Off
	}
	return keep, write, 2*patched <= length
}

// add adds s to spans, which are in order, and joins what overlaps by at least
// least bytes: with 0 what merely touches, too.
func add(spans []Span, s Span, least int) []Span {
	i := 0
	for i < len(spans) && spans[i].End-s.Off < least {
		i++
	}
	j := i
	for ; j < len(spans) && s.End-spans[j].Off >= least; j++ {
		s = Span{min(s.Off, spans[j].Off), max(s.End, spans[j].End)}
	}
	return slices.Replace(spans, i, j, s)
}
