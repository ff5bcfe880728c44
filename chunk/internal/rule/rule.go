// Package rule names the safety rules of this layer that a test can switch off,
// one at a time, to see that another test notices. In a program that is built
// without the tag cairnmutants every rule holds, and asking costs nothing.
package rule

// A Rule is one rule. Its text is what the environment variable CAIRN_MUTANT
// holds to switch it off.
type Rule string

// The rules.
const (
	// Salt: every object is sealed under a salt of its own (V10).
	Salt Rule = "salt"
	// Number: every part of an object has a number of its own (V10).
	Number Rule = "number"
	// Kind: an object opens only as what it is (V9).
	Kind Rule = "kind"
	// Verify: a block is opened again before it is published (V8).
	Verify Rule = "verify"
)
