package httpapi

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"
)

// A route is one operation. What names it in the text of an error.
type route struct {
	pattern string // of http.ServeMux
	what    string
	handle  func(w http.ResponseWriter, r *http.Request) error
	open    bool // to everyone: it tells nothing and changes nothing
}

// table returns every operation that is served.
func (s *Server) table() []route {
	all := []route{
		{pattern: "POST /backups/create", what: "Backup creation", handle: s.createBackup},
		{pattern: "POST /backups/create/streamed", what: "Backup creation", handle: s.createStreamed},
		{pattern: "GET /backups/create/streamed/websocket", what: "Backup creation", handle: s.createSocket},
		{pattern: "GET /backups/streamed/progress", what: "Progress", handle: s.progressSocket},
		{pattern: "GET /backups", what: "Backups snapshot", handle: s.listBackups},
		{pattern: "POST /backups/{backup}/delete", what: "Backup deletion", handle: s.deleteBackup},
		{pattern: "POST /backup", what: "Backup", handle: s.backupAssets},
		{pattern: "POST /backup/asset", what: "Backup of the asset", handle: s.backupAsset},
		{pattern: "GET /backup/{backup}", what: "Backup snapshot", handle: s.getBackup},
		{pattern: "POST /backup/{backup}/restore", what: "Restoration", handle: s.restoreBackup},
		{pattern: "POST /backup/{backup}/restore/streamed", what: "Restoration", handle: s.restoreStreamed},
		{pattern: "GET /backup/{backup}/restore/streamed/websocket", what: "Restoration", handle: s.restoreSocket},
		{pattern: "GET /backup/{backup}/creation/status", what: "Creation status", handle: s.creationStatus},
		{pattern: "POST /backup/{backup}/creation/cancel", what: "Cancel", handle: s.cancelCreation},
		{pattern: "GET /backup/{backup}/restoration/status", what: "Restoration status", handle: s.restorationStatus},
		{pattern: "POST /backup/{backup}/restoration/cancel", what: "Cancel", handle: s.cancelRestoration},
		{pattern: "GET /healthz", handle: s.healthz, open: true},
		{pattern: "GET /readyz", handle: s.readyz, open: true},
		{pattern: "GET /openapi.json", handle: s.document},
	}
	if s.opts.Metrics != nil {
		all = append(all, route{pattern: "GET /metrics", handle: func(w http.ResponseWriter, r *http.Request) error {
			s.opts.Metrics.ServeHTTP(w, r)
			return nil
		}})
	}
	return all
}

// routes returns the handler of the server: what everyone may ask, and behind
// the guard everything else.
func (s *Server) routes() http.Handler {
	open, guarded := http.NewServeMux(), http.NewServeMux()
	for _, rt := range s.table() {
		mux := guarded
		if rt.open {
			mux = open
		}
		mux.HandleFunc(rt.pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := rt.handle(w, r); err != nil {
				fail(w, rt.what, err)
			}
		})
	}
	open.Handle("/", s.guarded(guarded))
	return s.contained(open)
}

// guarded answers what the guard refuses, and hands on the rest.
func (s *Server) guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := s.guard.host(r)
		if err == nil {
			err = s.guard.origin(w, r)
		}
		if err == nil && isPreflight(r) {
			s.guard.preflight(w, r)
			return
		}
		if err == nil {
			err = s.guard.auth(r)
		}
		if err != nil {
			// A body that was refused is not read, however long it is.
			w.Header().Set("Connection", "close")
			fail(w, "", err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// contained logs each request, and ends a panic at the request that made it.
func (s *Server) contained(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begin := time.Now()
		out := &recorder{ResponseWriter: w}
		if p := recovered(func() { next.ServeHTTP(out, r) }); p != nil {
			if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(p) // it means the connection
			}
			s.opts.Logger.ErrorContext(r.Context(), "a request panicked", slog.Any("panic", p))
			if out.code == 0 {
				fail(out, "", refuse(http.StatusInternalServerError, "internal error"))
			}
		}
		report := RequestReport{Method: r.Method, Route: routeOf(r), Code: out.code, Duration: time.Since(begin)}
		level := slog.LevelDebug // reading is not worth a line each
		if r.Method == http.MethodPost || out.code >= http.StatusInternalServerError {
			level = slog.LevelInfo
		}
		s.opts.Logger.LogAttrs(r.Context(), level, "request", slog.String("method", r.Method), slog.String("path", r.URL.EscapedPath()),
			slog.Int("code", out.code), slog.Duration("took", report.Duration))
		s.opts.OnRequest(report)
	})
}

// recovered calls f and returns with what it panicked, and where, or nil.
func recovered(f func()) (p any) {
	defer func() {
		p = recover()
		if err, ok := p.(error); p != nil && (!ok || !errors.Is(err, http.ErrAbortHandler)) {
			p = fmt.Sprintf("%v\n%s", p, debug.Stack())
		}
	}()
	f()
	return nil
}

// routeOf returns the pattern of the operation that a request was for, "" if
// there is none: never what a client made up.
func routeOf(r *http.Request) string {
	_, pattern, ok := strings.Cut(r.Pattern, " ")
	if !ok {
		return ""
	}
	return pattern
}

// A recorder remembers the status code of an answer.
type recorder struct {
	http.ResponseWriter
	code int
}

func (r *recorder) WriteHeader(code int) {
	if r.code == 0 {
		r.code = code
	}
	r.ResponseWriter.WriteHeader(code)
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.code == 0 {
		r.code = http.StatusOK
	}
	return r.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) error {
	return plain(w, http.StatusOK, "ok")
}

// readyz tells whether the repository is open, and not why it is not: everyone
// may ask.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) error {
	select {
	case <-s.closing:
		return plain(w, http.StatusServiceUnavailable, "shutting down")
	default:
	}
	if _, err := s.opening.repository(r.Context()); err != nil {
		return plain(w, http.StatusServiceUnavailable, "the repository is not open")
	}
	return plain(w, http.StatusOK, "ready")
}

func plain(w http.ResponseWriter, code int, text string) error {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(text + "\n")) // who does not listen need not be told
	return nil
}

//go:embed openapi.json
var openAPI []byte

// document serves the description of what is served.
func (s *Server) document(w http.ResponseWriter, _ *http.Request) error {
	doc, err := s.openAPI()
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(doc) // who does not listen need not be told
	return nil
}

// openAPI returns the document, without the paths that this server lacks.
func (s *Server) openAPI() ([]byte, error) {
	if s.opts.Metrics != nil {
		return openAPI, nil
	}
	var doc map[string]any
	if err := json.Unmarshal(openAPI, &doc); err != nil {
		return nil, err
	}
	if paths, ok := doc["paths"].(map[string]any); ok {
		delete(paths, "/metrics")
	}
	return json.MarshalIndent(doc, "", "  ")
}
