// Command cairn makes encrypted, deduplicated backups and restores them.
//
// Run cairn --help for its commands. It is a thin layer over package engine:
// what it knows by itself is the command line, where secrets come from, and
// which store a path or URL means.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() { os.Exit(realMain()) }

// realMain runs the command line of this process. The first SIGINT or SIGTERM
// cancels it; the second ends the process at once.
func realMain() int {
	noDump()
	paceGarbage()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() { // lives as long as the process
		<-signals
		cancel()
		<-signals
		os.Exit(exitInterrupted) //nolint:revive // deep-exit: the user asked twice
	}()
	return run(ctx, os.Args[1:], stdio{in: os.Stdin, out: os.Stdout, err: os.Stderr}, os.Environ())
}
