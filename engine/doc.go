// Package engine is Cairn's library: a deduplicating, encrypting backup engine
// that a program links in. There is no daemon, no subprocess and no lock file.
//
//	repo, err := engine.OpenOrInit(ctx, local.New("/backups/app"), engine.KeyFile(path), engine.Options{CacheDir: dir})
//	if err != nil {
//		return err
//	}
//	defer repo.Close()
//	report, err := repo.Backup(ctx, source.Dir("/var/lib/app"), engine.BackupOptions{})
//	if err != nil {
//		return err
//	}
//	_, err = repo.Restore(ctx, report.Snapshot.ID, target.Dir("/tmp/copy"), engine.RestoreOptions{})
//
// # Concepts
//
// A [Repository] lives on a [backend.Backend], an object store, and is opened
// with a [Secret]. A backup reads a [source.Source] and publishes one snapshot,
// which holds everything that was read; nothing of an earlier one is needed to
// restore it. Content is cut into chunks by what it is, and each chunk is
// stored once, whichever file, snapshot or machine it comes from. Everything
// that is stored is compressed, encrypted and authenticated.
//
// What becomes visible becomes so by one record of a log in the store: a
// snapshot is there whole or not at all. What lies on this machine, in
// Options.CacheDir, is a hint: losing it costs time and nothing else.
//
// # Stores
//
// Package backend/local keeps a repository in a directory, backend/mem in
// memory, for tests, backend/s3 and backend/azure in object stores; each is
// linked only by who imports it. [Open] tries again what fails for a while
// (Options.Retry) and counts requests ([Repository.Traffic]). A store of
// one's own implements five methods, and package backend/backendtest tells
// whether it is right.
//
// # Secrets
//
// [KeyFile] opens by a file that [NewKeyFile] wrote, [Passphrase] by a passphrase,
// which costs 64 MiB and 0.2 CPU seconds for each attempt, [SSHKey] by an SSH
// private key, [Identity] by keys of package filippo.io/age. A repository can be
// opened by several of them: [Repository.AddKey] adds one, also another
// person's [PublicKey], [Repository.Keys] lists them, [Repository.RemoveKey]
// takes one away. A change of passphrase is to add the new one and remove the
// old one. Who loses all of them has lost the repository: keep a copy of a key
// where the repository is not. No secret is ever printed, logged or part of an
// error, whatever the format verb.
//
// # Backup
//
// [Repository.Backup] takes any source: a directory (source.Dir), several
// (source.Join), an [io/fs.FS] (source.FS), a stream whose producer may fail
// (source.Stream), a live SQLite database (package engine/source/sqlite). The
// package [source] says how they treat links, patterns and files that change.
//
// A file whose kind, size, times, inode and device are those of the last
// snapshot is not read again, unless it changed right before that; with Reread
// everything is. An unchanged tree costs a few requests. What an
// interrupted backup had stored is used by the next one.
//
// A database of SQLite or bbolt of 1 MiB or more, and what else its source says to
// consist of pages ([source.Paged], DirSource.Pages), is stored by the pages that changed since the
// last snapshot. With CacheDir that costs reading the file; without, what changed
// is read from the repository as well, and compared.
//
// By default, the first item that cannot be read ends the backup, and nothing
// is published. With OnUnreadable: [Skip] the snapshot is published and lists in
// Snapshot.Missing and by progress.Problem events what it lacks. Nothing in
// between: a nil error without Skip means that everything is there.
//
// # Restore
//
// [Repository.Restore] writes all of a snapshot, or RestoreOptions.Paths of it,
// to a [target.Target], and verifies every byte before it is written.
//
//   - target.Dir: a new directory, or an empty one. With Overwrite it may hold
//     something, and only what differs is fetched and written; with Delete what
//     the snapshot does not hold is removed; with DryRun nothing is
//     written, and the report says what would be.
//   - target.Swap: over live data, all or nothing; see below.
//   - target.Parts: the roots of a snapshot, each to a target of its own.
//   - target.Tar: an archive, as a stream.
//
// A restore over content that fails or is killed leaves each file old or new;
// the next one completes it. Only a file of 4 MiB or more that shares content
// with the old one is mended in place, and may be a mixture until then.
//
// # Restore over live data
//
// [target.Swap] restores beside the target, on the same file system, makes that
// durable, calls Verify, and exchanges the two in one step; until then, whatever
// fails, is cancelled or is killed leaves the original whole and in place. What was
// there is kept for one generation, since a process that has its files open
// goes on writing to them. An application
//
//   - sets Quiesce and Resume, in which it closes and opens its files. Without
//     them a target that another process has open is refused ([target.ErrInUse]);
//   - calls [target.Recover] when it starts, before it opens its files: that
//     finishes or undoes an exchange that was interrupted;
//   - calls [target.Discard], or sets KeepNone, where the old data take
//     space that it does not have.
//
// An exchange takes all of a snapshot: whatever RestoreOptions.OnError says, the
// first item that cannot be restored ends it. For an SQLite database give sqlite.Verify as Verify; the old -wal and
// -shm files go aside with the old database.
//
// Several roots with target.Parts: everything is restored and verified before the
// first exchange, which then follow one another. Should a later one fail, the
// earlier ones stay exchanged, and the error names them.
//
// # Views
//
// [Repository.FS] shows a snapshot as an [io/fs.FS]; its files can be read at any
// offset, and fetch no more than the blocks that hold what was asked for.
// [Repository.Diff] yields what differs between two snapshots, in time
// proportional to the difference. [Repository.Snapshots] and
// [Repository.Summaries] list snapshots from the log alone, [Repository.Snapshot]
// finds one by its ID, the beginning of one, or "latest". [Repository.Annotate]
// sets tags, a pin and a note.
//
// # Delete, forget, collect
//
// [Repository.Delete] makes snapshots invisible, and [Repository.Undelete] brings
// them back, as long as [Repository.Deleted] lists them. [Repository.PlanForget]
// applies a [manifest.Policy] and says of each snapshot why it stays or goes.
// Neither frees any space. [Repository.PlanGC] does: it finds what no
// snapshot needs, after GCOptions.DeleteDelay, and copies what lives in packs
// that are mostly dead. Every plan only reads, can be printed and looked at, and
// acts when its Run is called; what does not hold any more by then is left
// out, or is [ErrPlanStale].
//
// A program that makes backups each night does, now and then: PlanForget, Run,
// PlanGC, Run.
//
// # Check and repair
//
// [Repository.Check] looks for damage by stored data alone. DepthData reads every
// byte; Sample and MaxAge share that among many runs. Findings name the object,
// and the snapshots and paths that it hurts. With Record the next backup stores
// again what is damaged, as far as the source still has it, and so mends
// older snapshots.
//
// A repository whose log is damaged, holed or older than what this machine has
// seen opens all the same, readable at its last good state: [Repository.Problem]
// says so, and [Repository.PlanRepair] plans how to go on. It deletes and
// replaces nothing.
//
// # Errors to act on
//
// Every error of which a caller can make something is found by errors.Is;
// docs/errors.md lists them all. An error means that nothing was published, but for
// three: [ErrUnknownOutcome], where the store's last answer was lost (look at
// Snapshots), [ErrIncomplete], where a restore with [Skip] lists what is
// missing, and [target.ErrResume], where Resume failed after an exchange. Those a
// program meets:
//
//   - [ErrNoRepository], [ErrWrongKey], [ErrNewerFormat], [ErrUnauthorized]: tell
//     a person; trying again is pointless.
//   - [ErrUnavailable], [ErrConflict], [ErrPlanStale]: run it again later.
//   - [ErrNoSpace], [target.ErrNoSpace]: free some space, run it again.
//   - [source.ErrSource]: the source failed, not the store. The error of a stream's
//     producer, and that of a context, are found as themselves.
//   - [ErrForgotten], [ErrNotFound]: take another snapshot.
//   - [ErrCorrupt]: Check, and bring the object back from a copy of the store.
//   - [ErrRolledBack], [ErrLogHole], [ErrLogDamaged]: PlanRepair.
//
// # What is safe to do at once
//
// Everything. A Repository is safe for concurrent use, and any number of
// processes, on any number of machines, may back up, restore, check, delete and
// collect at the same time. No lock is taken, and no clock is trusted for safety.
// A reader whose snapshot is deleted and collected meanwhile gets ErrForgotten; a
// writer whose needs were collected tries again and then returns ErrConflict.
// Processes may share a CacheDir; one of them has the index on disk, and the
// others have theirs in memory. Only a store that cannot create an object only if
// it is absent makes an exception: [Repository.SingleWriter] tells.
//
// An operation ends within a second of its context being done. It keeps nothing
// in the Repository. Close comes when all have returned. A view of FS lives as
// long as the context that it was made with.
//
// # Memory
//
// Peak memory does not grow with the data: Options.Workers has the formula, which
// is 150 MiB + 20 MiB for each worker of a backup, and a part of that for a
// restore. It grows with packs (one for some 16 MiB stored) and snapshots, with the
// names of the largest directory, and, without a CacheDir, with the number of chunks.
//
// # Progress
//
// Every long operation takes a [progress.Func], which is told how far it is, at
// most ten times a second, what went wrong without ending it, and last that it has
// ended. Calls never overlap, and none comes after the operation has returned.
package engine
