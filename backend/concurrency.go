package backend

// A Concurrenter is a Backend that is reached over a network: it is waited for,
// and many requests can wait at once.
type Concurrenter interface {
	// Concurrency returns how many requests at once make the most of the store,
	// at least 1.
	Concurrency() int
}

// Concurrency returns how many requests at once make the most of the store
// behind b, or 0 if b does not say. Wrappers hand it on.
func Concurrency(b Backend) int {
	if c, ok := b.(Concurrenter); ok {
		return c.Concurrency()
	}
	return 0
}
