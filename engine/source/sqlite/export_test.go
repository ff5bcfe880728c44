package sqlite

// Between makes steps small and has f called before each.
func (s *Source) Between(f func()) { s.between = f }
