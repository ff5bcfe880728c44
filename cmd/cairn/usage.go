package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// flagError turns what the flag parser says into a usage error, with a hint if
// a flag has nearly that name.
func flagError(cmd *cobra.Command, err error) error {
	text := printableText(err.Error())
	usage := usagef("%s", text)
	name, ok := strings.CutPrefix(text, "unknown flag: --")
	if !ok {
		return usage
	}
	best, distance := "", 3
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if d := edits(name, f.Name); d < distance && !f.Hidden {
			best, distance = f.Name, d
		}
	})
	if best != "" {
		return withHint(usage, "did you mean --%s?", best)
	}
	return usage
}

// edits returns how many letters must be put in, left out or replaced to make
// a of b (Levenshtein's distance).
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// exactly and atLeast check the number of arguments and name what is missing.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := atLeast(names...)(cmd, args); err != nil {
			return err
		}
		return atMost(len(names))(cmd, args)
	}
}

func atLeast(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return usagef("%s needs %s", cmd.CommandPath(), strings.Join(names[len(args):], " and "))
		}
		return nonEmpty(args)
	}
}

func atMost(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > n {
			return usagef("%s does not take %q", cmd.CommandPath(), printableText(args[n]))
		}
		return nonEmpty(args)
	}
}

// nonEmpty refuses empty arguments, which a variable that is not set leaves in
// a script. None means anything here.
func nonEmpty(args []string) error {
	if slices.Contains(args, "") {
		return usagef("an argument is empty")
	}
	return nil
}
