// Command embed is a program of somebody else's: the ten lines of the README,
// in a module of its own. Its test holds what such a program links, and what
// not.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/cairn-backup/cairn/backend/local"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/engine/target"
)

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: embed STORE KEY DATA COPIED")
		os.Exit(2)
	}
	if err := run(context.Background(), os.Args[1], os.Args[2], os.Args[3], os.Args[4]); err != nil {
		fmt.Fprintln(os.Stderr, "embed:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, store, key, data, copied string) error {
	if err := engine.NewKeyFile(key); err != nil {
		return err
	}
	return keepSafe(ctx, store, key, data, copied)
}

func keepSafe(ctx context.Context, store, key, data, copied string) error {
	repo, err := engine.OpenOrInit(ctx, local.New(store), engine.KeyFile(key), engine.Options{})
	if err != nil {
		return err
	}
	defer repo.Close() // whatever it says, what was published is durable
	report, err := repo.Backup(ctx, source.Dir(data), engine.BackupOptions{})
	if err != nil {
		return err
	}
	_, err = repo.Restore(ctx, report.Snapshot.ID, target.Dir(copied), engine.RestoreOptions{})
	return err
}
