package engine_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cairn-backup/cairn/backend/local"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/engine/target"
)

// keepSafe is the example of the README.
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

// A program backs up a directory into a repository on this machine, and
// restores it to another.
func Example() {
	dir, err := os.MkdirTemp("", "cairn-example")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir) // a leftover in the temporary directory
	key, data, copied := filepath.Join(dir, "key"), filepath.Join(dir, "data"), filepath.Join(dir, "copied")
	if err := os.Mkdir(data, 0o700); err != nil {
		panic(err)
	}
	if err := os.WriteFile(filepath.Join(data, "hello.txt"), []byte("Hello, again."), 0o600); err != nil {
		panic(err)
	}
	if err := engine.NewKeyFile(key); err != nil {
		panic(err)
	}
	if err := keepSafe(context.Background(), filepath.Join(dir, "repository"), key, data, copied); err != nil {
		panic(err)
	}
	text, err := os.ReadFile(filepath.Join(copied, "hello.txt"))
	fmt.Println(string(text), err)
	// Output: Hello, again. <nil>
}
