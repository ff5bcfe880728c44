package log

import "maps"

// A lookup is a map of which clones share all but the newest entries.
type lookup[K comparable, V any] struct {
	base map[K]V // never changed
	tail map[K]V // newer entries; owned by this lookup
}

func (l *lookup[K, V]) get(k K) (V, bool) {
	if v, ok := l.tail[k]; ok {
		return v, true
	}
	v, ok := l.base[k]
	return v, ok
}

func (l *lookup[K, V]) set(k K, v V) {
	// A tail of an eighth of the base makes the copying of the base linear in
	// all entries, and that of the tail by clone small.
	if len(l.tail) > 64+len(l.base)/8 {
		base := make(map[K]V, len(l.base)+len(l.tail))
		maps.Copy(base, l.base)
		maps.Copy(base, l.tail)
		l.base, l.tail = base, nil
	}
	if l.tail == nil {
		l.tail = make(map[K]V)
	}
	l.tail[k] = v
}

func (l *lookup[K, V]) clone() lookup[K, V] {
	return lookup[K, V]{base: l.base, tail: maps.Clone(l.tail)}
}
