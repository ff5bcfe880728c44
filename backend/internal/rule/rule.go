// Package rule names the safety rules of this layer that a test can switch off,
// one at a time, to see that another test notices. In a program that is built
// without the tag cairnmutants every rule holds, and asking costs nothing.
package rule

// A Rule is one rule. Its text is what the environment variable CAIRN_MUTANT
// holds to switch it off.
type Rule string

// The rules.
const (
	// SyncDir: a name is durable only once its directory is (V13).
	SyncDir Rule = "sync-dir"
)
