package httpapi

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/cairn-backup/cairn/httpapi/internal/job"
	"github.com/cairn-backup/cairn/manifest"
)

// The models are those of the API, which clients of seven languages decode, some
// of them strictly: no required field may be missing or null, no list null, no
// number a string, and enumerations hold exactly the words of the document.

// A backupModel is a Backup.
type backupModel struct {
	ID         string    `json:"id"`
	Version    string    `json:"version"`
	Timestamp  string    `json:"timestamp"`
	Bytes      int64     `json:"bytes"`
	Created    timeModel `json:"created"`
	DeviceName string    `json:"device_name"`
	Platform   string    `json:"platform"`
}

// A timeModel is a GroupedTimestamp.
type timeModel struct {
	Value    string `json:"value"`
	Readable string `json:"readable"`
}

// A progressModel is a BackupStreamedProgress. Error is beyond the document:
// clients ignore what they do not know.
type progressModel struct {
	Status     string       `json:"status"`
	Percentage int          `json:"percentage"`
	Backup     *backupModel `json:"backup"`
	Error      string       `json:"error,omitempty"`
}

// A statusModel is a BackupStatus. The document calls its word "value" among the
// properties and "status" among the required ones: it is sent as both.
type statusModel struct {
	Value      string       `json:"value"`
	Status     string       `json:"status"`
	Percentage int          `json:"percentage"`
	Backup     *backupModel `json:"backup"`
	Error      string       `json:"error,omitempty"`
}

// A streamModel is a BackupsStreamedProgress.
type streamModel struct {
	Backups      []progressModel `json:"backups"`      // never nil
	Restorations []progressModel `json:"restorations"` // never nil
}

// readableLayout is for people.
const readableLayout = "Mon, Jan 2, 2006 3:04 PM"

// dateLayout is what JavaScript's toISOString writes: every client reads it.
const dateLayout = "2006-01-02T15:04:05.000Z"

func timeOf(t time.Time) timeModel {
	t = t.UTC()
	return timeModel{Value: t.Format(dateLayout), Readable: t.Format(readableLayout)}
}

// backupOf returns the model of the backup called id, which was made at created.
func backupOf(id string, created time.Time, of job.Subject) backupModel {
	version, timestamp, _ := strings.Cut(id, "_")
	return backupModel{
		ID: id, Version: version, Timestamp: timestamp, Bytes: of.Bytes, Created: timeOf(created),
		DeviceName: of.Device, Platform: platformWord(of.Platform),
	}
}

// jobBackup returns the model of the backup that a job makes or restores.
func jobBackup(st job.Status) *backupModel {
	b := backupOf(st.ID, createdBy(st.ID, st.Started), st.Subject)
	return &b
}

// platformWord returns the PlatformEnum for a GOOS/GOARCH.
func platformWord(platform string) string {
	system, _, _ := strings.Cut(platform, "/")
	switch system {
	case "darwin":
		return "MACOS"
	case "linux", "windows", "fuchsia", "ios", "android":
		return strings.ToUpper(system)
	case "js", "wasip1":
		return "WEB"
	}
	return "UNKNOWN"
}

func progressOf(st job.Status) progressModel {
	return progressModel{Status: string(st.State), Percentage: st.Percent, Backup: jobBackup(st), Error: st.Error}
}

func statusOf(st job.Status) statusModel {
	return statusModel{Value: string(st.State), Status: string(st.State), Percentage: st.Percent, Backup: jobBackup(st), Error: st.Error}
}

// completed is the status of a backup that is stored.
func completed(b backupModel) statusModel {
	return statusModel{Value: string(job.Completed), Status: string(job.Completed), Percentage: 100, Backup: &b}
}

func subjectOf(s *manifest.Summary) job.Subject {
	return job.Subject{Device: s.Host, Platform: s.Platform, Bytes: int64(s.Stats.Bytes)} //nolint:gosec // a size
}

// appendBackups appends a backupsModel as JSON. A list may hold tens of thousands;
// encoding/json takes three times as long for it. Identifiers and words need no
// escapes, names of machines may.
func appendBackups(p []byte, all []backup) []byte {
	device, quoted := "", []byte(`""`) // most are of one machine
	p = append(p, `{"iterable":[`...)
	for i := range all {
		b := all[i].model()
		if b.DeviceName != device || i == 0 {
			device = b.DeviceName
			quoted, _ = json.Marshal(device) // a string can always be encoded
		}
		if i > 0 {
			p = append(p, ',')
		}
		p = append(append(append(p, `{"id":"`...), b.ID...), `","version":"`...)
		p = append(append(append(p, b.Version...), `","timestamp":"`...), b.Timestamp...)
		p = strconv.AppendInt(append(p, `","bytes":`...), b.Bytes, 10)
		p = append(append(append(p, `,"created":{"value":"`...), b.Created.Value...), `","readable":"`...)
		p = append(append(append(p, b.Created.Readable...), `"},"device_name":`...), quoted...)
		p = append(append(append(p, `,"platform":"`...), b.Platform...), `"}`...)
	}
	p = append(p, `],"indices":{`...)
	for i := range all {
		if i > 0 {
			p = append(p, ',')
		}
		p = append(append(append(p, '"'), all[i].id...), `":`...)
		p = strconv.AppendInt(p, int64(i), 10)
	}
	return append(p, `}}`...)
}
