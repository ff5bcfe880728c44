package main

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

const (
	programName = "cairn"
	version     = "0.1.0"
	format      = 1 // of the repositories that this version reads and writes
)

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Say which version this is",
		Example: "  cairn version",
		Args:    atMost(0),
		RunE: func(*cobra.Command, []string) error {
			v := versionJSON{
				Schema: schema, Version: version, Format: format,
				Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, Commit: commit(),
			}
			if a.out.json {
				return a.out.document(v)
			}
			a.out.result("cairn %s (repository format %d, %s, %s)", v.Version, v.Format, v.Go, v.Platform)
			if a.out.verbose && v.Commit != "" {
				a.out.result("commit %s", v.Commit)
			}
			return nil
		},
	}
}

type versionJSON struct {
	Schema   int    `json:"schema"`
	Version  string `json:"version"`
	Format   int    `json:"format"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
	Commit   string `json:"commit"` // "" if the build does not know it
}

// commit returns the commit that this program was built from.
func commit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return ""
}
