package httpapi

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"github.com/coder/websocket"

	"github.com/cairn-backup/cairn/httpapi/internal/job"
)

// hasToken reports whether a header that is a list holds a word.
func hasToken(h http.Header, name, word string) bool {
	for _, v := range h.Values(name) {
		for part := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(part), word) {
				return true
			}
		}
	}
	return false
}

// upgrades reports whether a request asks for a WebSocket, as RFC 6455 has it:
// what it leads to is started before the upgrade is answered.
func upgrades(r *http.Request) bool {
	h := r.Header
	key, err := base64.StdEncoding.DecodeString(h.Get("Sec-WebSocket-Key"))
	return err == nil && len(key) == 16 && r.Method == http.MethodGet && r.ProtoMajor == 1 && r.ProtoMinor >= 1 &&
		hasToken(h, "Connection", "upgrade") && hasToken(h, "Upgrade", "websocket") && h.Get("Sec-WebSocket-Version") == "13"
}

// mustUpgrade answers 426 to a request that asks for no WebSocket.
func mustUpgrade(w http.ResponseWriter, r *http.Request) error {
	if upgrades(r) {
		return nil
	}
	w.Header().Set("Connection", "Upgrade")
	w.Header().Set("Upgrade", "websocket")
	w.Header().Set("Sec-WebSocket-Version", "13")
	return refuse(http.StatusUpgradeRequired, "this is a WebSocket: connect with an upgrade, or use the streamed operation")
}

func (s *Server) createSocket(w http.ResponseWriter, r *http.Request) error {
	if err := mustUpgrade(w, r); err != nil {
		return err
	}
	j, err := s.begin(w, r)
	if err != nil {
		return err
	}
	return s.jobSocket(w, r, j)
}

func (s *Server) restoreSocket(w http.ResponseWriter, r *http.Request) error {
	if err := mustUpgrade(w, r); err != nil {
		return err
	}
	j, err := s.beginRestore(w, r)
	if err != nil {
		return err
	}
	return s.jobSocket(w, r, j)
}

// jobSocket sends what becomes of a job, one object a message.
func (s *Server) jobSocket(w http.ResponseWriter, r *http.Request, j *job.Job) error {
	return s.socket(w, r, func(ctx context.Context, send func(model any) error) {
		for st := range j.Watch(ctx, s.opts.Heartbeat) {
			if send(progressOf(st)) != nil {
				return
			}
		}
	})
}

func (s *Server) progressSocket(w http.ResponseWriter, r *http.Request) error {
	if err := mustUpgrade(w, r); err != nil {
		return err
	}
	return s.socket(w, r, func(ctx context.Context, send func(model any) error) {
		for all := range s.jobs.Watch(ctx, s.opts.Heartbeat) {
			model := streamModel{Backups: []progressModel{}, Restorations: []progressModel{}}
			for _, st := range all {
				if st.Kind == job.Restoration {
					model.Restorations = append(model.Restorations, progressOf(st))
				} else {
					model.Backups = append(model.Backups, progressOf(st))
				}
			}
			if send(model) != nil {
				return
			}
		}
	})
}

// socket upgrades a connection and has f send its messages. The context of f
// ends when the other side goes, or the server is closed and its jobs are over.
func (s *Server) socket(w http.ResponseWriter, r *http.Request, f func(ctx context.Context, send func(model any) error)) error {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		InsecureSkipVerify: true, // the guard has looked at the origin
		CompressionMode:    websocket.CompressionDisabled,
	})
	if err != nil {
		// Accept has answered; a job that was started goes on, and can be asked for.
		s.opts.Logger.InfoContext(r.Context(), "no WebSocket", slog.Any("error", err))
		return nil
	}
	s.sockets.Add(1)
	defer s.sockets.Done()
	defer c.CloseNow() //nolint:errcheck // it is closed already, or broken
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	go func() { // ends with the connection
		defer cancel()
		discard(ctx, c)
	}()
	f(ctx, func(model any) error {
		data, err := json.Marshal(model)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, writeTimeout)
		defer cancel()
		return c.Write(ctx, websocket.MessageText, data)
	})
	_ = c.Close(websocket.StatusNormalClosure, "") // who does not listen need not be told
	return nil
}

// discard reads what a client sends, which means nothing, until it goes.
func discard(ctx context.Context, c *websocket.Conn) {
	c.SetReadLimit(maxIgnored)
	for {
		_, r, err := c.Reader(ctx)
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			return
		}
	}
}
