package engine_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/progress"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/engine/target"
	"github.com/cairn-backup/cairn/manifest"
)

// exampleRepository is a repository in memory and a directory with one file.
func exampleRepository(ctx context.Context) (repo *engine.Repository, dir string, remove func()) {
	repo, err := engine.OpenOrInit(ctx, mem.New(), secret, engine.Options{})
	if err != nil {
		panic(err)
	}
	if dir, err = os.MkdirTemp("", "cairn-example"); err != nil {
		panic(err)
	}
	exampleWrite(filepath.Join(dir, "app", "notes.txt"), "first")
	return repo, dir, func() { _, _ = repo.Close(), os.RemoveAll(dir) } // of an example
}

func exampleWrite(path, text string) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		panic(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		panic(err)
	}
}

func exampleBackup(ctx context.Context, repo *engine.Repository, dir string) engine.BackupReport {
	report, err := repo.Backup(ctx, source.Dir(dir), engine.BackupOptions{Tags: []string{"nightly"}})
	if err != nil {
		panic(err)
	}
	return report
}

// A backup tells how far it is, and what it could not read.
func ExampleRepository_Backup() {
	ctx := context.Background()
	repo, dir, remove := exampleRepository(ctx)
	defer remove()
	report, err := repo.Backup(ctx, source.Dir(filepath.Join(dir, "app")), engine.BackupOptions{
		Tags:         []string{"nightly"},
		OnUnreadable: engine.Skip,
		Progress: func(e progress.Event) {
			if p, ok := e.(progress.Problem); ok {
				fmt.Println("not read:", p.Path, p.Err)
			}
		},
	})
	fmt.Println(report.Snapshot.Stats.Files, "file,", report.Snapshot.Tags, err)
	// Output: 1 file, [nightly] <nil>
}

// A restore puts a directory back where it was, all of it or nothing: whatever
// fails, what was there stays in place.
func ExampleRepository_Restore() {
	ctx := context.Background()
	repo, dir, remove := exampleRepository(ctx)
	defer remove()
	app := filepath.Join(dir, "app")
	id := exampleBackup(ctx, repo, app).Snapshot.ID
	exampleWrite(filepath.Join(app, "notes.txt"), "spoilt")

	swap := target.Swap(app)
	swap.Quiesce = func(context.Context) error { fmt.Println("the application closes its files"); return nil }
	swap.Resume = func(context.Context) error { fmt.Println("it opens them again"); return nil }
	_, err := repo.Restore(ctx, id, swap, engine.RestoreOptions{})
	text, _ := os.ReadFile(filepath.Join(app, "notes.txt"))
	fmt.Println(string(text), err)
	// Output:
	// the application closes its files
	// it opens them again
	// first <nil>
}

// Over what is there, only what differs is fetched and written. A dry run says
// what would be done.
func ExampleRepository_Restore_overContent() {
	ctx := context.Background()
	repo, dir, remove := exampleRepository(ctx)
	defer remove()
	app := filepath.Join(dir, "app")
	id := exampleBackup(ctx, repo, app).Snapshot.ID
	exampleWrite(filepath.Join(app, "notes.txt"), "changed")
	exampleWrite(filepath.Join(app, "new.txt"), "new")

	over := target.Dir(app)
	over.Overwrite, over.Delete, over.DryRun = target.Changed, true, true
	report, err := repo.Restore(ctx, id, over, engine.RestoreOptions{})
	fmt.Println("replaced", report.Changes.Replaced, "deleted", report.Changes.Deleted, err)
	// Output: replaced 1 deleted 1 <nil>
}

// A snapshot is a file system: every package that takes one reads it.
func ExampleRepository_FS() {
	ctx := context.Background()
	repo, dir, remove := exampleRepository(ctx)
	defer remove()
	view, err := repo.FS(ctx, exampleBackup(ctx, repo, filepath.Join(dir, "app")).Snapshot.ID)
	if err != nil {
		panic(err)
	}
	text, err := fs.ReadFile(view, "app/notes.txt")
	fmt.Println(string(text), err)
	// Output: first <nil>
}

// A diff reads what differs, and nothing else.
func ExampleRepository_Diff() {
	ctx := context.Background()
	repo, dir, remove := exampleRepository(ctx)
	defer remove()
	app := filepath.Join(dir, "app")
	before := exampleBackup(ctx, repo, app).Snapshot.ID
	exampleWrite(filepath.Join(app, "new.txt"), "new")
	after := exampleBackup(ctx, repo, app).Snapshot.ID
	for change, err := range repo.Diff(ctx, before, after) {
		if err != nil {
			panic(err)
		}
		if change.Path == "app/new.txt" {
			fmt.Println(change.Kind, change.Path)
		}
	}
	// Output: added app/new.txt
}

// A check looks for damage by stored data alone. What it finds is in the report;
// an error says that it could not look.
func ExampleRepository_Check() {
	ctx := context.Background()
	repo, dir, remove := exampleRepository(ctx)
	defer remove()
	exampleBackup(ctx, repo, dir)
	report, err := repo.Check(ctx, engine.CheckOptions{Depth: engine.DepthData})
	fmt.Println(report.Snapshots, "snapshot,", len(report.Findings), "findings", err)
	// Output: 1 snapshot, 0 findings <nil>
}

// A deleted snapshot comes back as long as nothing of it was collected.
func ExampleRepository_Undelete() {
	ctx := context.Background()
	repo, dir, remove := exampleRepository(ctx)
	defer remove()
	id := exampleBackup(ctx, repo, dir).Snapshot.ID
	if err := repo.Delete(ctx, id); err != nil {
		panic(err)
	}
	_, err := repo.Restore(ctx, id, target.Dir(filepath.Join(dir, "copy")), engine.RestoreOptions{})
	fmt.Println("deleted:", errors.Is(err, engine.ErrForgotten))
	if err := repo.Undelete(ctx, id); err != nil {
		panic(err)
	}
	snap, err := repo.Snapshot(ctx, "latest")
	fmt.Println("back:", snap.ID == id, err)
	// Output:
	// deleted: true
	// back: true <nil>
}

// A policy says which snapshots stay, and the plan of each why. It forgets
// nothing before Run.
func ExampleRepository_PlanForget() {
	ctx := context.Background()
	repo, dir, remove := exampleRepository(ctx)
	defer remove()
	for range 3 {
		exampleBackup(ctx, repo, dir)
	}
	plan, err := repo.PlanForget(ctx, manifest.Policy{Last: 2}, engine.ForgetOptions{})
	if err != nil {
		panic(err)
	}
	fmt.Println("of", plan.Total(), "snapshots", len(plan.Forget()), "would go")
	report, err := plan.Run(ctx)
	fmt.Println("forgotten:", len(report.Forgotten), err)
	// Output:
	// of 3 snapshots 1 would go
	// forgotten: 1 <nil>
}

// A collection frees the space of what no snapshot needs. By default it waits a
// day after a Delete, in which an Undelete is possible.
func ExampleRepository_PlanGC() {
	ctx := context.Background()
	repo, dir, remove := exampleRepository(ctx)
	defer remove()
	if err := repo.Delete(ctx, exampleBackup(ctx, repo, dir).Snapshot.ID); err != nil {
		panic(err)
	}
	plan, err := repo.PlanGC(ctx, engine.GCOptions{})
	if err != nil {
		panic(err)
	}
	fmt.Println("today there is nothing to collect:", plan.Empty())
	plan, err = repo.PlanGC(ctx, engine.GCOptions{DeleteDelay: -1, SpareAge: -1})
	if err != nil {
		panic(err)
	}
	report, err := plan.Run(ctx)
	fmt.Println("freed:", report.Freed() > 0, err)
	// Output:
	// today there is nothing to collect: true
	// freed: true <nil>
}

// A repository can be opened by several secrets. A change of passphrase adds the
// new one before it removes the old one.
func ExampleRepository_AddKey() {
	ctx := context.Background()
	repo, dir, remove := exampleRepository(ctx)
	defer remove()
	second := filepath.Join(dir, "second.key")
	if err := engine.NewKeyFile(second); err != nil {
		panic(err)
	}
	id, err := repo.AddKey(ctx, engine.KeyFile(second), "laptop")
	if err != nil {
		panic(err)
	}
	for slot, err := range repo.Keys(ctx) {
		if slot.ID == id {
			fmt.Println(slot.Type, slot.Label, err)
		}
	}
	fmt.Println(repo.RemoveKey(ctx, id))
	// Output:
	// x25519 laptop <nil>
	// <nil>
}
