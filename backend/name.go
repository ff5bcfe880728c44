package backend

// A Namer is a Backend that can name its store.
type Namer interface {
	// Name returns a text that is the same for every Backend that reaches the
	// same objects in the same way, and holds no secret.
	Name() string
}

// Name returns the name of the store behind b, or "" if it has none. Wrappers
// hand it on. It is a hint: what lies there may have been exchanged.
func Name(b Backend) string {
	if n, ok := b.(Namer); ok {
		return n.Name()
	}
	return ""
}
