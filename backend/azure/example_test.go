package azure_test

import (
	"context"
	"errors"
	"log"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/azure"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/target"
)

// A program restores the newest snapshot from a container, with the identity of
// the machine, and says what a person can do if that fails.
func Example() {
	ctx := context.Background()
	store, err := azure.New(azure.Options{Account: "myaccount", Container: "backups", Prefix: "app"})
	if err != nil {
		log.Fatal(err)
	}
	repo, err := engine.Open(ctx, store, engine.KeyFile("/etc/app/backup.key"), engine.Options{ReadOnly: true})
	if trouble, ok := errors.AsType[*backend.TroubleError](err); ok {
		log.Fatalf("%v: %s", err, trouble.Advice)
	} else if err != nil {
		log.Fatal(err)
	}
	defer repo.Close()
	snap, err := repo.Snapshot(ctx, "latest")
	if err != nil {
		log.Print(err)
		return
	}
	if _, err := repo.Restore(ctx, snap.ID, target.Dir("/var/lib/app-restored"), engine.RestoreOptions{}); err != nil {
		log.Print(err)
	}
}
