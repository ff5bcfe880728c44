package s3_test

import (
	"context"
	"log"

	"github.com/cairn-backup/cairn/backend/s3"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/source"
)

// A program backs up to a bucket, with the credentials of the machine's role.
func Example() {
	ctx := context.Background()
	store, err := s3.New(s3.Options{Bucket: "my-backups", Prefix: "app", Region: "eu-north-1"})
	if err != nil {
		log.Fatal(err)
	}
	repo, err := engine.OpenOrInit(ctx, store, engine.KeyFile("/etc/app/backup.key"), engine.Options{
		CacheDir: "/var/cache/app/backup", MetadataCache: 512 << 20,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer repo.Close()
	if _, err := repo.Backup(ctx, source.Dir("/var/lib/app"), engine.BackupOptions{}); err != nil {
		log.Print(err)
	}
}
