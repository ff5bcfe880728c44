package manifest

import "slices"

// Match reports whether f selects s, Latest left aside.
func (f Filter) Match(s Summary) bool {
	switch {
	case !anyOf(f.IDs, s.ID), !anyOf(f.Kinds, s.Kind), !anyOf(f.Names, s.Name), !anyOf(f.Hosts, s.Host):
		return false
	case !f.Since.IsZero() && s.Start.Compare(f.Since) < 0:
		return false
	case !f.Until.IsZero() && s.Start.Compare(f.Until) >= 0:
		return false
	}
	for _, tag := range f.Tags {
		if !slices.Contains(s.Tags, tag) {
			return false
		}
	}
	return true
}

// Select returns the summaries of all, oldest first, that f selects: with
// Latest, the last so many of those that match. The result is new.
func (f Filter) Select(all []Summary) []Summary {
	var matching []Summary
	for _, s := range all {
		if f.Match(s) {
			matching = append(matching, s)
		}
	}
	if f.Latest > 0 && len(matching) > f.Latest {
		matching = matching[len(matching)-f.Latest:]
	}
	return matching
}

// anyOf reports whether v is in list, or list asks for nothing.
func anyOf[T comparable](list []T, v T) bool {
	return len(list) == 0 || slices.Contains(list, v)
}
