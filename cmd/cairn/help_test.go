package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestHelp: every command says in one line what it does, and has an example
// that this very command line understands.
func TestHelp(t *testing.T) {
	root := (&app{out: &output{}}).rootCommand()
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			if sub.Name() != "help" && sub.Name() != "completion" {
				visit(sub)
			}
		}
		if cmd.Short == "" || strings.Contains(cmd.Short, "\n") {
			t.Errorf("%s: %q does not say what it does", cmd.CommandPath(), cmd.Short)
		}
		var out bytes.Buffer
		cmd.SetOut(&out)
		if err := cmd.Help(); err != nil || !strings.Contains(out.String(), "Examples:") {
			t.Errorf("%s: the help has no example: %v", cmd.CommandPath(), err)
		}
		named := false
		for line := range strings.Lines(cmd.Example) {
			line, _, _ = strings.Cut(strings.TrimSpace(line), "#")
			words := strings.Fields(line)
			if len(words) == 0 || words[0] != "cairn" {
				t.Errorf("%s: the example %q does not begin with cairn", cmd.CommandPath(), line)
				continue
			}
			found, _, err := root.Find(words[1:])
			if err != nil {
				t.Errorf("%s: the example %q: %v", cmd.CommandPath(), line, err)
				continue
			}
			named = named || found == cmd || found.HasParent() && found.Parent() == cmd
			for _, w := range words[1:] {
				name, ok := strings.CutPrefix(w, "--")
				if !ok {
					continue
				}
				if name == "" {
					break // of another command's
				}
				name, _, _ = strings.Cut(name, "=")
				if found.Flag(name) == nil && found.InheritedFlags().Lookup(name) == nil {
					t.Errorf("%s: the example %q has a flag that is not known: --%s", cmd.CommandPath(), line, name)
				}
			}
		}
		if !named {
			t.Errorf("%s: no example is of it:\n%s", cmd.CommandPath(), cmd.Example)
		}
	}
	visit(root)
}

// TestDidYouMean: what is nearly a command or a flag is named.
func TestDidYouMean(t *testing.T) {
	for args, want := range map[string]string{
		"bakcup /x":                   "hint: did you mean backup?",
		"cache lst":                   "hint: did you mean list?",
		"key ad":                      "hint: did you mean add",
		"backup --one-file-systm /x":  "hint: did you mean --one-file-system?",
		"snapshots --jsn":             "hint: did you mean --json?",
		"zzzzzzzzzz":                  "hint: cairn --help",
		"restore latest --nothingfit": "hint: cairn restore --help",
	} {
		var out, errs bytes.Buffer
		code := run(t.Context(), strings.Fields(args), stdio{in: strings.NewReader(""), out: &out, err: &errs}, nil)
		if code != exitUsage || !strings.Contains(errs.String(), want) || out.Len() > 0 {
			t.Errorf("cairn %s: %d, %q, want %q", args, code, errs.String(), want)
		}
	}
}
