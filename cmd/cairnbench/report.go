package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// A result is one measurement.
type result struct {
	Set   string `json:"set"`
	Tool  string `json:"tool"`
	Op    op     `json:"op"`
	Round int    `json:"round"`

	Wall   float64 `json:"wall"`   // seconds
	CPU    float64 `json:"cpu"`    // seconds, User and System less Key
	User   float64 `json:"user"`   // seconds
	System float64 `json:"system"` // seconds
	Key    float64 `json:"key"`    // seconds of deriving the key from a passphrase

	Peak       int64 `json:"peak"`       // resident memory at its highest, bytes
	Repository int64 `json:"repository"` // afterwards, bytes
	Added      int64 `json:"added"`      // to the repository, bytes

	Requests  *int64 `json:"requests,omitempty"`  // to the store, where the tool reports them
	Meanwhile int    `json:"meanwhile,omitempty"` // backups that another process published during a collection
}

// A summary is what the rounds of one operation say.
type summary struct {
	Set  string `json:"set"`
	Tool string `json:"tool"`
	Op   op     `json:"op"`

	Wall float64 `json:"wall"` // median, seconds
	CPU  float64 `json:"cpu"`  // median, seconds
	// Ratio is the CPU of Cairn by that of this tool: the median over
	// the rounds. 0 where there is no such figure.
	Ratio      float64 `json:"ratio"`
	Peak       int64   `json:"peak"`       // highest, bytes
	Repository int64   `json:"repository"` // median, bytes
	Added      int64   `json:"added"`      // median, bytes

	Key       float64 `json:"key"`                 // median, seconds, not in CPU
	Requests  *int64  `json:"requests,omitempty"`  // of the last round
	Meanwhile int     `json:"meanwhile,omitempty"` // of the last round
}

// A report is everything that is printed.
type report struct {
	Schema  int               `json:"schema"`
	Time    time.Time         `json:"time"`
	Machine map[string]string `json:"machine"`
	Scale   float64           `json:"scale"`
	Rounds  int               `json:"rounds"`
	Results []result          `json:"results"`
	Summary []summary         `json:"summary"`
	Bounds  []bound           `json:"bounds"`
}

func newReport(o options, machine map[string]string, results []result) report {
	lines := summarize(results)
	return report{
		Schema: 2, Time: time.Now().UTC().Truncate(time.Second), Machine: machine,
		Scale: o.scale, Rounds: o.rounds, Results: results, Summary: lines, Bounds: bounds(lines),
	}
}

// summarize puts the rounds together, in the order of the first round.
func summarize(results []result) []summary {
	var all []summary
	for _, first := range results {
		if first.Round != 1 {
			continue
		}
		var wall, cpu, ratio, repository, added, key []float64
		s := summary{Set: first.Set, Tool: first.Tool, Op: first.Op}
		for _, r := range results {
			if r.Set != s.Set || r.Tool != s.Tool || r.Op != s.Op {
				continue
			}
			wall, cpu, key = append(wall, r.Wall), append(cpu, r.CPU), append(key, r.Key)
			repository, added = append(repository, float64(r.Repository)), append(added, float64(r.Added))
			s.Peak = max(s.Peak, r.Peak)
			s.Requests, s.Meanwhile = r.Requests, r.Meanwhile
			if base := baseOf(results, r); base != nil && r.CPU > 0 {
				ratio = append(ratio, base.CPU/r.CPU)
			}
		}
		s.Wall, s.CPU, s.Key, s.Ratio = median(wall), median(cpu), median(key), median(ratio)
		s.Repository, s.Added = int64(median(repository)), int64(median(added))
		all = append(all, s)
	}
	return all
}

// baseOf returns what Cairn needed for the same, in the same round;
// nil if r is Cairn's.
func baseOf(results []result, r result) *result {
	for i, b := range results {
		if b.Tool == firstTool && b.Tool != r.Tool && b.Set == r.Set && b.Op == r.Op && b.Round == r.Round {
			return &results[i]
		}
	}
	return nil
}

// median returns the middle of some numbers, 0 if there are none.
func median(all []float64) float64 {
	if len(all) == 0 {
		return 0
	}
	all = slices.Sorted(slices.Values(all))
	return (all[(len(all)-1)/2] + all[len(all)/2]) / 2
}

func (r report) writeJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// writeText writes the medians as a table in Markdown.
func (r report) writeText(w io.Writer) error {
	b := bufio.NewWriter(w)
	_, _ = fmt.Fprintf(b, "%s, scale %g, rounds %d\n", r.Time.Format("2006-01-02 15:04 MST"), r.Scale, r.Rounds) // Flush tells
	keys := make([]string, 0, len(r.Machine))
	for k := range r.Machine {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		_, _ = fmt.Fprintf(b, "%s: %s\n", k, r.Machine[k]) // Flush tells
	}
	_, _ = fmt.Fprintln(b) // Flush tells
	t := tabwriter.NewWriter(b, 0, 0, 1, ' ', 0)
	row := func(cells ...string) {
		_, _ = fmt.Fprintf(t, "| %s\t|\n", strings.Join(cells, "\t| ")) // Flush tells
	}
	row("set", "operation", "tool", "CPU s", "ratio", "key s", "wall s", "peak MiB", "repository MiB", "added MiB", "requests")
	row("---", "---", "---", "--:", "--:", "--:", "--:", "--:", "--:", "--:", "--:")
	for _, s := range r.Summary {
		ratio, asked := "", ""
		if s.Requests != nil {
			asked = fmt.Sprint(*s.Requests)
		}
		if s.Ratio > 0 {
			ratio = fmt.Sprintf("%.2f", s.Ratio)
		}
		row(s.Set, string(s.Op), s.Tool, fmt.Sprintf("%.2f", s.CPU), ratio, fmt.Sprintf("%.2f", s.Key), fmt.Sprintf("%.2f", s.Wall),
			mib(s.Peak, 0), mib(s.Repository, 1), mib(s.Added, 2), asked)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	r.writeBounds(b)
	_, _ = fmt.Fprintln(b, "\nCPU: user and system seconds, key derivation (key) left out; medians of the rounds. Ratio: the CPU of cairn by that of the tool.") // Flush tells
	return b.Flush()
}

func mib(n int64, digits int) string {
	return fmt.Sprintf("%.*f", digits, float64(n)/(1<<20))
}

// machine returns what the figures depend on.
func machine(ctx context.Context, tools []tool) map[string]string {
	m := map[string]string{
		"system": fmt.Sprintf("%s/%s, %d CPUs", runtime.GOOS, runtime.GOARCH, runtime.NumCPU()),
		"go":     runtime.Version(),
	}
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil { // only Linux has it
		for line := range strings.Lines(string(info)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				m["processor"] = strings.TrimSpace(value)
			}
		}
	}
	if commit, err := firstLine(exec.CommandContext(ctx, "git", "describe", "--always", "--dirty", "--abbrev=10")); err == nil {
		m["commit"] = commit // none outside a checkout
	}
	for _, t := range tools {
		m[t.name()] = t.version()
	}
	return m
}
