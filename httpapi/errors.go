package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"unicode"

	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/httpapi/internal/job"
)

// A refusal is an error with a status code of its own.
type refusal struct {
	code int
	text string
}

func (e *refusal) Error() string { return e.text }

func refuse(code int, format string, args ...any) error {
	return &refusal{code: code, text: fmt.Sprintf(format, args...)}
}

// codeOf returns the status code for an error: 511 where the repository cannot
// be reached or refuses us, 505 where something is newer than this server, and
// else 500.
func codeOf(err error) int {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r.code
	}
	if errors.Is(err, engine.ErrNewerFormat) {
		return http.StatusHTTPVersionNotSupported
	}
	if _, ok := errors.AsType[*unopened](err); ok {
		return http.StatusNetworkAuthenticationRequired
	}
	for _, away := range []error{engine.ErrUnauthorized, engine.ErrUnavailable, engine.ErrWrongKey, engine.ErrNoRepository} {
		if errors.Is(err, away) {
			return http.StatusNetworkAuthenticationRequired
		}
	}
	return http.StatusInternalServerError
}

// textOf returns what a client is told, as one line.
func textOf(what string, err error) string {
	text := err.Error()
	if _, ok := errors.AsType[*unopened](err); ok {
		text = "the repository cannot be opened: " + text
	}
	if errors.Is(err, context.Canceled) {
		text = "canceled"
	}
	if _, ok := errors.AsType[*refusal](err); !ok && what != "" {
		text = what + " failed: " + text
	}
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.TrimSpace(strings.ReplaceAll(text, "\n", "; ")))
	return strings.TrimSuffix(text, ".") + "."
}

// fail answers a request with an error, as text: what every client expects.
func fail(w http.ResponseWriter, what string, err error) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Del("Content-Length")
	w.WriteHeader(codeOf(err))
	_, _ = w.Write([]byte(textOf(what, err))) // who does not listen need not be told
}

// ended returns the error by which a call is answered whose job has ended.
func ended(st job.Status, err error) error {
	if st.State == job.Canceled {
		return refuse(http.StatusInternalServerError, "the %s of backup %s was canceled", st.Kind, st.ID)
	}
	return err
}
