package backend

import "context"

// An Inspector is a Backend that can look at how its store is set up.
type Inspector interface {
	// Inspect returns what will, or may, keep a repository there from working or
	// from costing no more than it must, as far as this user may know. It makes a
	// few requests and changes nothing.
	Inspect(ctx context.Context) ([]*TroubleError, error)
}

// Inspect looks at how the store behind b is set up, if b can.
func Inspect(ctx context.Context, b Backend) ([]*TroubleError, error) {
	if i, ok := b.(Inspector); ok {
		return i.Inspect(ctx)
	}
	return nil, nil
}
