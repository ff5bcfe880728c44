package httpapi

import (
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/cairn-backup/cairn/httpapi/internal/job"
)

// writeTimeout is how long a client may take to take one event.
const writeTimeout = 30 * time.Second

const ndjson = "application/x-ndjson"

// wantsEvents reports whether a client asks for one event a line. Generated
// clients never do: they read one object, and say so or accept everything.
func wantsEvents(r *http.Request) bool {
	for _, accept := range r.Header.Values("Accept") {
		for part := range strings.SplitSeq(accept, ",") {
			kind, params, err := mime.ParseMediaType(part)
			if err == nil && params["q"] != "0" && (kind == ndjson || kind == "application/ndjson" || kind == "application/jsonl") {
				return true
			}
		}
	}
	return false
}

func (s *Server) createStreamed(w http.ResponseWriter, r *http.Request) error {
	j, err := s.begin(w, r)
	if err != nil {
		return err
	}
	s.stream(w, r, j)
	return nil
}

func (s *Server) restoreStreamed(w http.ResponseWriter, r *http.Request) error {
	j, err := s.beginRestore(w, r)
	if err != nil {
		return err
	}
	s.stream(w, r, j)
	return nil
}

// A sender sends parts of an answer as they come.
type sender struct {
	w  http.ResponseWriter
	rc *http.ResponseController
}

// send sends p at once, or fails if the client does not take it.
func (s *sender) send(p []byte) error {
	// A writer that knows no deadlines, as in tests, has nobody to wait for.
	_ = s.rc.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, err := s.w.Write(p); err != nil {
		return err
	}
	if err := s.rc.Flush(); !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil // some middleware of an embedder collects it: it comes in the end
}

// stream answers with what becomes of a job: events, a line each, if asked for,
// and else line feeds, which JSON ignores, and one object when it is over.
func (s *Server) stream(w http.ResponseWriter, r *http.Request, j *job.Job) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // a proxy in between must not collect it
	out := &sender{w: w, rc: http.NewResponseController(w)}
	if wantsEvents(r) {
		h.Set("Content-Type", ndjson)
		for st := range j.Watch(r.Context(), s.opts.Heartbeat) {
			line, err := json.Marshal(progressOf(st))
			if err != nil || out.send(append(line, '\n')) != nil {
				return
			}
		}
		return
	}
	h.Set("Content-Type", "application/json")
	if out.send([]byte("\n")) != nil {
		return
	}
	ticker := time.NewTicker(s.opts.Heartbeat)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			if out.send([]byte("\n")) != nil {
				return
			}
		case <-j.Done():
			if last, err := json.Marshal(progressOf(j.Status())); err == nil {
				_ = out.send(last) // who does not listen need not be told
			}
			return
		case <-r.Context().Done():
			return
		}
	}
}
