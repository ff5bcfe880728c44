package main

import (
	"github.com/spf13/pflag"

	"github.com/cairn-backup/cairn/engine"
)

// compressionFlag adds the flag to a command that stores data.
func (a *app) compressionFlag(fs *pflag.FlagSet) {
	fs.StringVar(&a.flags.compression, "compression", engine.CompressionFastest.String(),
		"`level` of what is stored: fastest, default, better, best, s2 (least CPU time) or auto (by what is slow)")
}

// compression returns what the flag says.
func (a *app) compression() (engine.Compression, error) {
	if a.flags.compression == "" { // the command has no such flag
		return engine.CompressionFastest, nil
	}
	c, err := engine.ParseCompression(a.flags.compression)
	if err != nil {
		return c, usagef("--%v", err)
	}
	return c, nil
}
