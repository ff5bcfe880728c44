package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/cairn-backup/cairn/httpapi/internal/job"
)

// answer sends a model: one JSON object, and nothing else.
func answer(w http.ResponseWriter, model any) error {
	data, err := json.Marshal(model)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(data) // who does not listen need not be told
	return nil
}

func noContent(w http.ResponseWriter) error {
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// ignoreBody reads a body that carries nothing: clients send a backup, an empty
// object, null, or nothing, with whatever they know of the backup by now. The
// path says which one is meant.
func ignoreBody(w http.ResponseWriter, r *http.Request) error {
	body, done := limited(w, r, maxIgnored)
	defer done()
	_, err := io.Copy(io.Discard, body)
	return bodyError(err)
}

// bodyTimeout is how long a body may take.
const bodyTimeout = 5 * time.Minute

// limited returns the body of a request, bounded in bytes and time. done lifts
// the bound in time, which would else count for what comes after.
func limited(w http.ResponseWriter, r *http.Request, limit int64) (body io.Reader, done func()) {
	rc := http.NewResponseController(w)
	// A writer that knows no deadlines, as in tests, has nobody to wait for.
	_ = rc.SetReadDeadline(time.Now().Add(bodyTimeout))
	return http.MaxBytesReader(w, r.Body, limit), func() { _ = rc.SetReadDeadline(time.Time{}) }
}

// bodyError returns the answer to a body that could not be read.
func bodyError(err error) error {
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return refuse(http.StatusRequestEntityTooLarge, "the body has more than %d bytes", tooLarge.Limit)
	}
	if err != nil {
		return refuse(http.StatusBadRequest, "the body cannot be read: %v", err)
	}
	return nil
}

// readBody reads a body of at most limit bytes. Nothing, null and an empty
// object are all nil.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	body, done := limited(w, r, limit)
	defer done()
	data, err := io.ReadAll(body)
	if err != nil {
		return nil, bodyError(err)
	}
	data = bytes.TrimSpace(data)
	if len(data) == 0 || string(data) == "null" {
		return nil, nil
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(data, &object); err != nil {
		return nil, refuse(http.StatusBadRequest, "the body is no JSON object: %v", err)
	}
	if len(object) == 0 {
		return nil, nil
	}
	return data, nil
}

func (s *Server) listBackups(w http.ResponseWriter, r *http.Request) error {
	repo, err := s.opening.repository(r.Context())
	if err != nil {
		return err
	}
	all, err := s.stored(r.Context(), repo)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(appendBackups(make([]byte, 0, 64+320*len(all)), all)) // who does not listen need not be told
	return nil
}

// stored1 finds the backup that the path names.
func (s *Server) stored1(r *http.Request) (Repository, backup, error) {
	repo, err := s.opening.repository(r.Context())
	if err != nil {
		return nil, backup{}, err
	}
	b, err := s.find(r.Context(), repo, r.PathValue("backup"))
	return repo, b, err
}

func (s *Server) getBackup(w http.ResponseWriter, r *http.Request) error {
	_, b, err := s.stored1(r)
	if err != nil {
		return err
	}
	return answer(w, b.model())
}

func (s *Server) deleteBackup(w http.ResponseWriter, r *http.Request) error {
	if err := ignoreBody(w, r); err != nil {
		return err
	}
	repo, b, err := s.stored1(r)
	if err != nil {
		return err
	}
	if j, ok := s.jobs.Find(job.Restoration, b.id); ok && !j.Status().State.Final() {
		return refuse(http.StatusInternalServerError, "backup %s is being restored", b.id)
	}
	// Once it is sent the answer must be known, whoever has gone.
	if err := repo.Delete(context.WithoutCancel(r.Context()), b.snapshot); err != nil {
		return err
	}
	s.jobs.Forget(job.Creation, b.id)
	return noContent(w)
}

// begin starts the job that creates a backup.
func (s *Server) begin(w http.ResponseWriter, r *http.Request) (*job.Job, error) {
	if err := ignoreBody(w, r); err != nil {
		return nil, err
	}
	repo, err := s.opening.repository(r.Context())
	if err != nil {
		return nil, err
	}
	return s.startCreation(r.Context(), repo)
}

// beginRestore starts the job that restores the backup that the path names.
func (s *Server) beginRestore(w http.ResponseWriter, r *http.Request) (*job.Job, error) {
	if err := ignoreBody(w, r); err != nil {
		return nil, err
	}
	repo, b, err := s.stored1(r)
	if err != nil {
		return nil, err
	}
	if version := b.model().Version; newer(version) {
		return nil, refuse(http.StatusHTTPVersionNotSupported, "backup %s is of version %s, and this server of %s: update it", b.id, version, APIVersion)
	}
	return s.startRestoration(r.Context(), repo, b)
}

// finish waits for a job and answers with its backup. If the client goes the job
// goes on: its outcome can be asked for.
func finish(w http.ResponseWriter, r *http.Request, j *job.Job) error {
	st, err := j.Wait(r.Context())
	if !st.State.Final() {
		return err
	}
	if err := ended(st, err); err != nil {
		return err
	}
	return answer(w, jobBackup(st))
}

func (s *Server) createBackup(w http.ResponseWriter, r *http.Request) error {
	j, err := s.begin(w, r)
	if err != nil {
		return err
	}
	return finish(w, r, j)
}

func (s *Server) restoreBackup(w http.ResponseWriter, r *http.Request) error {
	j, err := s.beginRestore(w, r)
	if err != nil {
		return err
	}
	return finish(w, r, j)
}

// creationStatus tells of a job that runs from memory, and of one that is over
// what the log says; if that cannot be asked, what is remembered.
func (s *Server) creationStatus(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("backup")
	if !validID(id) {
		return refuse(http.StatusNotFound, "there is no such backup")
	}
	j, known := s.jobs.Find(job.Creation, id)
	if known {
		if st := j.Status(); !st.State.Final() && st.State != job.CutOff {
			return answer(w, statusOf(st))
		}
	}
	repo, b, err := s.stored1(r)
	switch {
	case err == nil:
		return answer(w, completed(b.model()))
	case known && !errors.Is(err, errUnknown):
		return answer(w, statusOf(j.Status()))
	case !errors.Is(err, errUnknown):
		return err
	case !known:
		return refuse(http.StatusNotFound, "there is no backup %s, and none was begun", id)
	}
	s.settleCreations(r.Context(), repo)
	if j, known = s.jobs.Find(job.Creation, id); !known || j.Status().State == job.Completed {
		s.jobs.Forget(job.Creation, id) // it was deleted, by whomever
		return refuse(http.StatusNotFound, "backup %s was deleted", id)
	}
	return answer(w, statusOf(j.Status()))
}

func (s *Server) restorationStatus(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("backup")
	j, known := s.jobs.Find(job.Restoration, id)
	if !known {
		return refuse(http.StatusNotFound, "that backup was not restored here")
	}
	st := j.Status()
	if st.Subject == (job.Subject{}) { // only the data remember it
		if _, b, err := s.stored1(r); err == nil {
			st.Subject = b.subject
		}
	}
	return answer(w, statusOf(st))
}

func (s *Server) cancelCreation(w http.ResponseWriter, r *http.Request) error {
	return s.cancel(w, r, job.Creation)
}

func (s *Server) cancelRestoration(w http.ResponseWriter, r *http.Request) error {
	return s.cancel(w, r, job.Restoration)
}

// cancel cancels a job, and answers once everything is as before.
func (s *Server) cancel(w http.ResponseWriter, r *http.Request, kind job.Kind) error {
	if err := ignoreBody(w, r); err != nil {
		return err
	}
	id := r.PathValue("backup")
	if !validID(id) {
		return errUnknown
	}
	err := s.jobs.Cancel(r.Context(), kind, id)
	switch {
	case errors.Is(err, job.ErrIdle):
		return refuse(http.StatusInternalServerError, "there is no %s of backup %s in progress", kind, id)
	case err != nil:
		return err
	}
	return noContent(w)
}
