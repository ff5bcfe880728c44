package main

import (
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"strconv"
)

// restic is restic with its defaults.
type restic struct{ program }

func (r restic) commands(ctx context.Context, j job) ([]*exec.Cmd, error) {
	switch j.op {
	case opInit:
		return one(r.restic(j, "init")), nil
	case opFirst, opUnchanged, opChanged, opHistory:
		return one(r.restic(j, "backup", ".")), nil
	case opRestore:
		return one(r.restic(j, "restore", "latest", "--target", j.restored())), nil
	case opCheck:
		return one(r.restic(j, "check", "--read-data")), nil
	case opDelete:
		ids, err := listed(ctx, r.restic(j, "snapshots", "--json"))
		if err == nil {
			ids, err = pick(ids, j.doomed)
		}
		return one(r.restic(j, append([]string{"forget"}, ids...)...)), err
	case opCollect:
		return one(r.restic(j, "prune")), nil
	}
	return nil, nil
}

func (r restic) keyCommand(j job) *exec.Cmd { return r.restic(j, "cat", "config") }

func (r restic) restic(j job, args ...string) *exec.Cmd {
	args = append([]string{"--quiet", "--repo", j.repo(), "--cache-dir", j.cache()}, args...)
	return r.run(j.data, []string{"RESTIC_PASSWORD=" + passphrase}, args...)
}

// borg is borg 1 with its defaults and the faster of its ways to encrypt.
type borg struct{ program }

func (b borg) commands(_ context.Context, j job) ([]*exec.Cmd, error) {
	switch j.op {
	case opInit:
		return one(b.borg(j, j.data, "init", "--encryption", "repokey-blake2", j.repo())), nil
	case opFirst, opUnchanged, opChanged, opHistory:
		return one(b.borg(j, j.data, "create", j.repo()+"::"+tag(j.number), ".")), nil
	case opRestore:
		return one(b.borg(j, j.restored(), "extract", j.repo()+"::"+tag(j.number))), nil
	case opCheck:
		return one(b.borg(j, j.data, "check", "--verify-data", j.repo())), nil
	case opDelete:
		args := []string{"delete", j.repo()}
		for _, n := range j.doomed {
			args = append(args, tag(n))
		}
		return one(b.borg(j, j.data, args...)), nil
	case opCollect:
		return one(b.borg(j, j.data, "compact", j.repo())), nil
	}
	return nil, nil
}

func (b borg) keyCommand(j job) *exec.Cmd {
	return b.borg(j, j.data, "list", "--last", "1", j.repo())
}

func (b borg) borg(j job, dir string, args ...string) *exec.Cmd {
	return b.run(dir, []string{
		"BORG_PASSPHRASE=" + passphrase, "BORG_BASE_DIR=" + j.cache(), "BORG_DISPLAY_PASSPHRASE=no",
		"BORG_RELOCATED_REPO_ACCESS_IS_OK=yes", "BORG_CHECK_I_KNOW_WHAT_I_AM_DOING=YES",
	}, args...)
}

// kopia is kopia with its defaults: it does not compress.
type kopia struct{ program }

func (k kopia) commands(ctx context.Context, j job) ([]*exec.Cmd, error) {
	switch j.op {
	case opInit:
		return one(k.kopia(j, "repository", "create", "filesystem", "--path", j.repo(), "--cache-directory", j.cache())), nil
	case opFirst, opUnchanged, opChanged, opHistory:
		return one(k.kopia(j, "snapshot", "create", ".")), nil
	case opCheck:
		return one(k.kopia(j, "snapshot", "verify", "--verify-files-percent=100")), nil
	case opCollect:
		// What --safety=full spares for a day would be all that there is.
		return one(k.kopia(j, "maintenance", "run", "--full", "--safety=none")), nil
	case opRestore, opDelete:
		ids, err := listed(ctx, k.kopia(j, "snapshot", "list", "--json", "--show-identical", "."))
		if err != nil || len(ids) == 0 {
			return nil, errors.Join(err, errors.New("there is no snapshot"))
		}
		if j.op == opRestore {
			return one(k.kopia(j, "snapshot", "restore", ids[len(ids)-1], j.restored())), nil
		}
		ids, err = pick(ids, j.doomed)
		return one(k.kopia(j, append([]string{"snapshot", "delete", "--delete"}, ids...)...)), err
	}
	return nil, nil
}

// listed returns the ids that a command lists, oldest first.
func listed(ctx context.Context, cmd *exec.Cmd) ([]string, error) {
	var doc []struct{ ID string }
	err := list(ctx, cmd, &doc)
	ids := make([]string, len(doc))
	for i := range doc {
		ids[i] = doc[i].ID
	}
	return ids, err
}

func (k kopia) keyCommand(j job) *exec.Cmd { return k.kopia(j, "repository", "status") }

func (k kopia) kopia(j job, args ...string) *exec.Cmd {
	args = append([]string{"--config-file", filepath.Join(j.dir, "kopia.config"), "--log-dir", filepath.Join(j.dir, "logs")}, args...)
	return k.run(j.data, []string{"KOPIA_PASSWORD=" + passphrase, "KOPIA_CHECK_FOR_UPDATES=false"}, args...)
}

// duplicacy is duplicacy with its defaults and encryption. Its preferences lie
// where it is started, and say what it backs up.
type duplicacy struct{ program }

func (d duplicacy) commands(_ context.Context, j job) ([]*exec.Cmd, error) {
	switch j.op {
	case opInit:
		return one(d.duplicacy(j, "init", "-e", "-repository", j.data, "bench", j.repo())), nil
	case opFirst, opUnchanged, opChanged, opHistory:
		return one(d.duplicacy(j, "backup")), nil
	case opCheck:
		return one(d.duplicacy(j, "check", "-chunks")), nil
	case opRestore:
		aside := j
		aside.dir = filepath.Join(j.dir, "aside")
		connect := d.run(aside.dir, d.env(), "init", "-e", "-repository", j.restored(), "bench", j.repo())
		restore := d.run(aside.dir, d.env(), "restore", "-r", strconv.Itoa(j.number))
		return []*exec.Cmd{connect, restore}, nil
	case opDelete:
		args := []string{"prune", "-exclusive"}
		for _, n := range j.doomed {
			args = append(args, "-r", strconv.Itoa(n))
		}
		return one(d.duplicacy(j, args...)), nil
	case opCollect:
		return one(d.duplicacy(j, "prune", "-exhaustive", "-exclusive")), nil
	}
	return nil, nil
}

func (d duplicacy) env() []string { return []string{"DUPLICACY_PASSWORD=" + passphrase} }

func (d duplicacy) duplicacy(j job, args ...string) *exec.Cmd { return d.run(j.dir, d.env(), args...) }
