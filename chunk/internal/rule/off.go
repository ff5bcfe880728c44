//go:build cairnmutants

package rule

import "os"

// mutant is read once: a program has one rule switched off, or none.
var mutant = os.Getenv("CAIRN_MUTANT") //nolint:gochecknoglobals // of programs that are made to be wrong

// Off reports whether the rule is switched off.
func Off(r Rule) bool { return string(r) == mutant }
