// Package rule names the safety rules of this layer that a test can switch off,
// one at a time, to see that another test notices. In a program that is built
// without the tag cairnmutants every rule holds, and asking costs nothing.
package rule

// A Rule is one rule. Its text is what the environment variable CAIRN_MUTANT
// holds to switch it off.
type Rule string

// The rules.
const (
	// Rely: what a snapshot needs is live where its record lands (R2).
	Rely Rule = "rely"
	// Live: it is live, and not only no longer doomed (R2).
	Live Rule = "live"
	// Own: the packs that a session stored are checked as well (R2).
	Own Rule = "own"
	// Index: what the index knows is checked when a snapshot is committed (R2).
	Index Rule = "index"
	// Inherit: needs of the parent are needs of the child.
	Inherit Rule = "inherit"
	// Base: who patches a group of a parent needs what the parent does.
	Base Rule = "base"
	// Derive: a record is derived anew from every record before it (R1).
	Derive Rule = "derive"
	// Confirm: the last record is read again before the log is said to end, or
	// is added to (R6).
	Confirm Rule = "confirm"
	// Needed: what a snapshot needs is not doomed (R3).
	Needed Rule = "needed"
	// Succeed: a needed pack is doomed only with its successors named (R3).
	Succeed Rule = "succeed"
	// Landed: who rewrites packs reads what landed meanwhile (R3).
	Landed Rule = "landed"
	// Walk: what lives in a pack is found by its chunks (R3).
	Walk Rule = "walk"
	// Doom: doom before delete (R4).
	Doom Rule = "doom"
	// Durable: the record that dooms is durable before anything is deleted (R4).
	Durable Rule = "durable"
	// Plan: a plan holds where its record lands.
	Plan Rule = "plan"
)
