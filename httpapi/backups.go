package httpapi

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/cairn-backup/cairn/httpapi/internal/job"
	"github.com/cairn-backup/cairn/manifest"
)

// idLabel is the label by which a snapshot knows the identifier of its backup.
const idLabel = "cairn.backup"

// maxIDLen bounds an identifier, in bytes.
const maxIDLen = 128

// errUnknown says that there is no such backup.
var errUnknown = errors.New("there is no such backup")

// validID reports whether id can be that of a backup: version_timestamp, of
// letters, digits, dots and hyphens.
func validID(id string) bool {
	version, timestamp, ok := strings.Cut(id, "_")
	if !ok || version == "" || timestamp == "" || len(id) > maxIDLen {
		return false
	}
	for _, part := range []string{version, timestamp} {
		for _, c := range []byte(part) {
			if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '.' && c != '-' {
				return false
			}
		}
	}
	return true
}

// millis returns the moment in an identifier, 0 if there is none.
func millis(id string) int64 {
	_, timestamp, _ := strings.Cut(id, "_")
	ms, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil || ms < 0 || ms > 1e14 {
		return 0
	}
	return ms
}

// createdBy returns the moment in an identifier, or other if there is none.
func createdBy(id string, other time.Time) time.Time {
	if ms := millis(id); ms > 0 {
		return time.UnixMilli(ms)
	}
	return other
}

// newer reports whether version is higher than the server's.
func newer(version string) bool {
	mine := strings.Split(APIVersion, ".")
	for i, part := range strings.Split(version, ".") {
		n, err := strconv.ParseUint(part, 10, 32)
		if err != nil {
			return false // not of this kind of version
		}
		var own uint64
		if i < len(mine) {
			own, _ = strconv.ParseUint(mine[i], 10, 32) // a constant
		}
		if n != own {
			return n > own
		}
	}
	return false
}

// A backup is a stored backup: a complete snapshot of the data set.
type backup struct {
	id       string
	snapshot manifest.ID
	start    time.Time
	subject  job.Subject
}

func (b *backup) model() backupModel { return backupOf(b.id, createdBy(b.id, b.start), b.subject) }

// stored returns the backups of the data set, oldest first.
func (s *Server) stored(ctx context.Context, repo Repository) ([]backup, error) {
	all := make([]backup, 0, 64)
	taken := make(map[string]bool)
	for sum, err := range repo.Summaries(ctx, manifest.Filter{Kinds: []manifest.Kind{manifest.KindDatabase}, Names: []string{s.data.Name}}) {
		if err != nil {
			return nil, err
		}
		if !sum.Complete {
			continue
		}
		id := sum.Labels[idLabel]
		if !validID(id) { // not made by a server
			id = APIVersion + "_" + strconv.FormatInt(sum.Start.Time().UnixMilli(), 10)
		}
		if taken[id] { // by another machine, in the same millisecond
			id += "-" + sum.ID.Short()
		}
		taken[id] = true
		all = append(all, backup{id: id, snapshot: sum.ID, start: sum.Start.Time(), subject: subjectOf(&sum)})
	}
	return all, nil
}

// find returns the backup called id, or errUnknown.
func (s *Server) find(ctx context.Context, repo Repository, id string) (backup, error) {
	if !validID(id) {
		return backup{}, errUnknown
	}
	all, err := s.stored(ctx, repo)
	if err != nil {
		return backup{}, err
	}
	for _, b := range all {
		if b.id == id {
			return b, nil
		}
	}
	return backup{}, fmt.Errorf("%w as %s", errUnknown, id)
}

// newID returns an identifier that no backup has, and that is greater than every
// one that this machine has given.
func (s *Server) newID(ctx context.Context, repo Repository) (string, error) {
	all, err := s.stored(ctx, repo)
	if err != nil {
		return "", err
	}
	taken := make(map[string]bool, len(all))
	var floor int64
	for i := range all {
		taken[all[i].id] = true
		if all[i].subject.Device == s.host {
			floor = max(floor, millis(all[i].id))
		}
	}
	for {
		id := APIVersion + "_" + strconv.FormatInt(s.jobs.NextMS(floor), 10)
		if !taken[id] {
			return id, nil
		}
	}
}

// settleRestorations says what became of the restores that were cut off: the
// data themselves know the last one that came to its end.
func (s *Server) settleRestorations(ctx context.Context) error {
	record, err := s.data.Target.Recorded(ctx)
	if err != nil {
		return err
	}
	id, token := parseRecord(record)
	for _, st := range s.jobs.CutOff() {
		if st.Kind != job.Restoration {
			continue
		}
		st.State, st.Error, st.Ended = job.Failed, cutOff, time.Now()
		if st.ID == id && st.Token == token {
			st.State, st.Percent, st.Error = job.Completed, 100, ""
		}
		s.jobs.Settle(st)
	}
	if id == "" {
		return nil
	}
	if _, known := s.jobs.Find(job.Restoration, id); !known {
		now := time.Now()
		s.jobs.Settle(job.Status{Kind: job.Restoration, ID: id, Token: token, State: job.Completed, Percent: 100, Started: now, Ended: now})
	}
	return nil
}

// cutOff is why a job failed that ended with its process.
const cutOff = "the server was stopped while it ran"

// settleCreations says what became of the backups that were cut off: the log
// knows those that were stored.
func (s *Server) settleCreations(ctx context.Context, repo Repository) {
	cut := s.jobs.CutOff()
	if len(cut) == 0 {
		return
	}
	all, err := s.stored(ctx, repo)
	if err != nil {
		return // they stay cut off, until somebody asks
	}
	for _, st := range cut {
		st.State, st.Error, st.Ended = job.Failed, cutOff, time.Now()
		for i := range all {
			if all[i].id == st.ID {
				st.State, st.Percent, st.Error, st.Subject = job.Completed, 100, "", all[i].subject
			}
		}
		s.jobs.Settle(st)
	}
}

// recordOf returns what the data remember of a restore, which parseRecord reads.
func recordOf(st job.Status) string { return "cairn restoration " + st.ID + " " + st.Token }

func parseRecord(record string) (id, token string) {
	rest, ok := strings.CutPrefix(record, "cairn restoration ")
	id, token, found := strings.Cut(rest, " ")
	if !ok || !found || !validID(id) {
		return "", ""
	}
	return id, token
}
