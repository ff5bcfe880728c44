package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// firstTool is the one that the others are compared with.
const firstTool = "cairn"

// A bound is something that Cairn wants to reach with a data set.
type bound struct {
	Set    string  `json:"set"`
	What   string  `json:"what"`
	Is     float64 `json:"is"`
	Limit  float64 `json:"limit"`
	Unit   string  `json:"unit"`
	Beside string  `json:"beside"` // what the limit comes from
	Holds  bool    `json:"holds"`
}

// What Cairn wants to reach: shares of the best peer, and how much more than
// its floor is allowed where that is more.
const (
	halfOfPeer    = 0.5
	mostOfPeer    = 0.7
	overKernels   = 1.25
	overStat      = 1.5
	processStart  = 0.06 // seconds
	overSmallest  = 1.06
	databaseShare = 0.1
	peakLimit     = 150 << 20 // bytes
)

// lines are the summary of one set.
type lines []summary

// get returns the line of a tool and an operation, nil if there is none.
func (l lines) get(tool string, o op) *summary {
	i := slices.IndexFunc(l, func(s summary) bool { return s.Tool == tool && s.Op == o })
	if i < 0 {
		return nil
	}
	return &l[i]
}

// best returns the smallest value of the named tools, and whose it is.
func (l lines) best(tools []string, value func(tool string) (float64, bool)) (name string, least float64) {
	for _, t := range tools {
		if v, ok := value(t); ok && (name == "" || v < least) {
			name, least = t, v
		}
	}
	return name, least
}

// cpu sums the CPU seconds of some operations.
func (l lines) cpu(ops ...op) func(tool string) (float64, bool) {
	return func(tool string) (sum float64, ok bool) {
		for _, o := range ops {
			s := l.get(tool, o)
			if s == nil {
				return 0, false
			}
			sum += s.CPU
		}
		return sum, true
	}
}

// bytes returns a number of bytes of an operation.
func (l lines) bytes(o op, of func(summary) int64) func(tool string) (float64, bool) {
	return func(tool string) (float64, bool) {
		s := l.get(tool, o)
		if s == nil {
			return 0, false
		}
		return float64(of(*s)) / (1 << 20), true
	}
}

func peers() []string { return []string{"restic", "borg", "kopia", "duplicacy"} }

// compressing are the peers that compress by default.
func compressing() []string { return []string{"restic", "borg", "duplicacy"} }

// repacking are the peers that rewrite what is partly dead.
func repacking() []string { return []string{"restic", "borg", "kopia"} }

// bounds compares what Cairn needs with what it wants to reach, where both are
// measured.
func bounds(all []summary) []bound {
	var names []string
	sets := make(map[string]lines)
	for _, s := range all {
		if sets[s.Set] == nil {
			names = append(names, s.Set)
		}
		sets[s.Set] = append(sets[s.Set], s)
	}
	var out []bound
	for _, name := range names {
		l := sets[name]
		out = append(out, l.times(name)...)
		out = append(out, l.sizes(name)...)
	}
	return out
}

// times are the bounds of CPU time.
func (l lines) times(set string) []bound {
	var out []bound
	for _, b := range []struct {
		what  string
		ops   []op
		tools []string
		share float64
		floor float64 // times the kernels; 0: no matter
		start float64 // seconds on top of that
	}{
		{"first backup", []op{opFirst}, compressing(), halfOfPeer, overKernels, 0},
		{"unchanged backup", []op{opUnchanged}, peers(), halfOfPeer, 0, 0},
		{"changed backup", []op{opChanged}, peers(), halfOfPeer, 0, 0},
		{"backups of a history", []op{opHistory}, peers(), halfOfPeer, 0, 0},
		{"restore", []op{opRestore}, peers(), halfOfPeer, overKernels, 0},
		{"check of every byte", []op{opCheck}, peers(), mostOfPeer, 0, 0},
		{"delete and collect", []op{opDelete, opCollect}, repacking(), mostOfPeer, 0, 0},
	} {
		cpu := l.cpu(b.ops...)
		is, ok := cpu(firstTool)
		peer, least := l.best(b.tools, cpu)
		if !ok || peer == "" {
			continue
		}
		limit, beside := b.share*least, fmt.Sprintf("%g of %s", b.share, peer)
		if kernels, ok := cpu("kernels"); ok && b.floor > 0 && b.floor*kernels+b.start > limit {
			limit, beside = b.floor*kernels+b.start, fmt.Sprintf("%g of the kernels", b.floor)
		}
		out = append(out, bound{Set: set, What: b.what, Is: is, Limit: limit, Unit: "CPU s", Beside: beside, Holds: is <= limit})
	}
	is, ok := l.cpu(opUnchanged)(firstTool)
	if stat, measured := l.cpu(opUnchanged)("kernels"); set == "many" && ok && measured {
		limit := overStat*stat + processStart
		out = append(out, bound{
			Set: set, What: "unchanged backup", Is: is, Limit: limit, Unit: "CPU s",
			Beside: fmt.Sprintf("%g of a parallel lstat, and %g s", overStat, processStart), Holds: is <= limit,
		})
	}
	return out
}

// sizes are the bounds of what is stored, and of memory.
func (l lines) sizes(set string) []bound {
	var out []bound
	add := func(what string, share float64, value func(tool string) (float64, bool)) {
		is, ok := value(firstTool)
		peer, least := l.best(peers(), value)
		if ok && peer != "" {
			out = append(out, bound{Set: set, What: what, Is: is, Limit: share * least, Unit: "MiB", Beside: fmt.Sprintf("%g of %s", share, peer), Holds: is <= share*least})
		}
	}
	share := 1.0
	if set == "db" {
		share = databaseShare
	}
	add("stored by the changed backup", share, l.bytes(opChanged, func(s summary) int64 { return s.Added }))
	add("repository after the first backup", overSmallest, l.bytes(opFirst, func(s summary) int64 { return s.Repository }))
	peak := int64(0)
	for _, s := range l {
		if s.Tool == firstTool {
			peak = max(peak, s.Peak)
		}
	}
	if peak > 0 {
		out = append(out, bound{
			Set: set, What: "highest memory", Is: float64(peak) / (1 << 20), Limit: peakLimit >> 20, Unit: "MiB",
			Beside: "aim", Holds: peak <= peakLimit,
		})
	}
	return out
}

// writeBounds writes the bounds as a table in Markdown.
func (r report) writeBounds(w io.Writer) {
	if len(r.Bounds) == 0 {
		return
	}
	_, _ = fmt.Fprintln(w) // the caller's Flush tells, here and below
	t := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	row := func(cells ...string) {
		_, _ = fmt.Fprintf(t, "| %s\t|\n", strings.Join(cells, "\t| "))
	}
	row("set", "bound", "is", "limit", "", "from", "")
	row("---", "---", "--:", "--:", "---", "---", "---")
	for _, b := range r.Bounds {
		holds := "holds"
		if !b.Holds {
			holds = "missed"
		}
		if !b.Holds && b.Limit > 0 {
			holds += fmt.Sprintf(", %.2f times", b.Is/b.Limit)
		}
		row(b.Set, b.What, fmt.Sprintf("%.2f", b.Is), fmt.Sprintf("%.2f", b.Limit), b.Unit, b.Beside, holds)
	}
	_ = t.Flush() // as above
}
