// Package httpapi serves the documented Backup and Backups HTTP API over an
// engine.Repository: the published clients of that API work against it
// unchanged.
//
// A [Server] is an http.Handler for one set of local data. Everything it does is
// a call of the engine, which it sees through the small interface [Repository],
// or of a job that runs one. It opens the repository by itself, again and again
// until that succeeds, since a server whose store is away must still say so.
package httpapi

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/engine/target"
	"github.com/cairn-backup/cairn/httpapi/internal/job"
	"github.com/cairn-backup/cairn/manifest"
)

// APIVersion is the level of the API that this server speaks, and the first half
// of the identifier of the backups it makes. A backup of a higher version is
// listed, and not restored.
const APIVersion = "1.0.0"

// A Repository is what a [Server] needs of an *engine.Repository, which is one.
// Its methods are those of the engine and safe for concurrent use.
type Repository interface {
	Backup(ctx context.Context, src source.Source, opts engine.BackupOptions) (engine.BackupReport, error)
	Restore(ctx context.Context, id manifest.ID, dst target.Target, opts engine.RestoreOptions) (engine.RestoreReport, error)
	Summaries(ctx context.Context, f manifest.Filter) iter.Seq2[manifest.Summary, error]
	Delete(ctx context.Context, ids ...manifest.ID) error
	Annotate(ctx context.Context, id manifest.ID, a manifest.Annotation) error
}

// An Opener returns the open repository, or why it cannot be had. It is called
// one call at a time, at most once a second, until it succeeds, and again when
// what it gave is a [Removable] that is gone. Whoever gives it closes the
// repository, after the Server.
type Opener func(ctx context.Context) (Repository, error)

// A Removable is a [Repository] that can go while it is open, as a disk that is
// unmounted does.
type Removable interface {
	Repository

	// Gone reports whether it is not there any more. It is asked before each
	// use, so it must be quick; of a repository that is gone nothing new is
	// asked, and the Opener is called for another one.
	Gone() bool
}

// Data is what is backed up and restored.
type Data struct {
	// Name is that of the data set: its backups, from every machine, are those
	// that the server knows. Default: "default".
	Name string

	// Source is the data. Files and directories are published only if nothing
	// changed while they were read; a source with a consistency of its own, such
	// as a database's, is taken as it is.
	Source source.Source

	// Target is where the data are, to be replaced by a restore.
	Target *target.SwapTarget
}

// Options says how a [Server] works. The zero value is for a server that listens
// on loopback.
type Options struct {
	// Token is what requests must carry, as Authorization: Bearer or as
	// X-Application-ID. Default: nothing is asked for, and the server must not
	// be reachable from other machines.
	Token string

	// Hosts are the host names, without port, by which requests may address the
	// server, beside those of loopback. A page that was lured to another name by
	// DNS is refused by it.
	Hosts []string

	// Origins are those of web pages that may use the server, such as
	// https://app.example, beside those of loopback.
	Origins []string

	// AllowChanging publishes data that kept changing while they were read, with
	// the tag "changing". Default: such a backup fails.
	AllowChanging bool

	// StateDir is where it is kept which jobs were started, so that they can be
	// told after a restart. Default: only what the log and the data tell.
	StateDir string

	// MaxCreations is how many backups are created at once. Default: 4.
	MaxCreations int

	// MaxBody bounds the assets of one request, in bytes. Default: 64 MiB.
	MaxBody int64

	// Heartbeat is how often a streamed answer without news shows that it lives.
	// Default: 5 s, since the strictest client waits 10.
	Heartbeat time.Duration

	// Metrics is served at /metrics. Default: nothing is there.
	Metrics http.Handler

	// OnJob is told of every job that ended, from any goroutine; it must be
	// quick. Default: nobody.
	OnJob func(JobReport)

	// OnRequest is told of every request that was answered, from any goroutine;
	// it must be quick. Default: nobody.
	OnRequest func(RequestReport)

	// Logger is told of requests, jobs, and what no client is told. Never a
	// secret. Default: silent.
	Logger *slog.Logger
}

// A JobReport is a job that has ended.
type JobReport struct {
	ID       string        // of the backup
	Restore  bool          // else it was created
	State    string        // COMPLETED, FAILED or CANCELED
	Bytes    int64         // of the backup
	Duration time.Duration // by the wall clock
	Error    string        // why it failed
}

// A RequestReport is a request that was answered.
type RequestReport struct {
	Method   string
	Route    string // the pattern of its path, "" if there is no such operation
	Code     int    // of the answer; 0 if there was none
	Duration time.Duration
}

const (
	defaultName    = "default"
	defaultMaxBody = 64 << 20
	// maxIgnored bounds a body that is not needed, in bytes.
	maxIgnored = 1 << 20
	// openTimeout is how long opening the repository may take.
	openTimeout = time.Minute
	// firstOpen is how long Open waits for it.
	firstOpen = 10 * time.Second
)

func (o Options) withDefaults() Options {
	if o.MaxBody == 0 {
		o.MaxBody = defaultMaxBody
	}
	if o.Heartbeat == 0 {
		o.Heartbeat = 5 * time.Second
	}
	if o.OnJob == nil {
		o.OnJob = func(JobReport) {}
	}
	if o.OnRequest == nil {
		o.OnRequest = func(RequestReport) {}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// A Server is the API for one set of data. It is safe for concurrent use.
type Server struct {
	data    Data
	opts    Options
	host    string // of this machine
	guard   *guard
	opening *opening
	jobs    *job.Table
	handler http.Handler
	storing chan struct{} // a token for each request that stores assets
	closing chan struct{} // closed by Close
	stop    func()        // closes it, once
	sockets sync.WaitGroup
}

var _ http.Handler = (*Server)(nil)

// Open returns a server for data. It finishes or undoes what an interrupted
// restore has left, reads the states of earlier jobs, and tries once to open the
// repository; that it cannot be opened is no error, since it may be later.
func Open(ctx context.Context, open Opener, data Data, opts Options) (*Server, error) {
	if data.Source == nil || data.Target == nil || open == nil {
		return nil, errors.New("httpapi: opener, source and target are required")
	}
	if data.Name == "" {
		data.Name = defaultName
	}
	opts = opts.withDefaults()
	s := &Server{data: data, opts: opts, closing: make(chan struct{})}
	s.stop = sync.OnceFunc(func() { close(s.closing) })
	var err error
	if s.host, err = os.Hostname(); err != nil {
		return nil, fmt.Errorf("httpapi: %w", err)
	}
	if s.guard, err = newGuard(opts); err != nil {
		return nil, fmt.Errorf("httpapi: %w", err)
	}
	if err := data.Target.Recover(ctx); err != nil {
		return nil, fmt.Errorf("httpapi: an interrupted restore: %w", err)
	}
	s.jobs, err = job.Open(job.Options{
		Dir: opts.StateDir, MaxCreations: opts.MaxCreations, Logger: opts.Logger, Ended: s.jobEnded,
	})
	if err != nil {
		return nil, fmt.Errorf("httpapi: %w", err)
	}
	if err := s.settleRestorations(ctx); err != nil {
		return nil, fmt.Errorf("httpapi: %w", err)
	}
	s.handler = s.routes()
	s.storing = make(chan struct{}, max(opts.MaxCreations, 4))
	s.opening = newOpening(open, opts.Logger)
	first, cancel := context.WithTimeout(ctx, firstOpen)
	defer cancel()
	if repo, err := s.opening.repository(first); err == nil {
		s.settleCreations(ctx, repo)
	}
	return s, ctx.Err()
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Close takes no more jobs, cancels those that run, and returns when everything
// they did is taken back, or when ctx is done. Streamed answers end with it. It
// may be called again.
func (s *Server) Close(ctx context.Context) error {
	s.stop()
	err := s.jobs.Close(ctx)
	if err == nil {
		err = await(ctx, &s.opening.group)
	}
	if err == nil {
		err = await(ctx, &s.sockets)
	}
	if err != nil {
		return fmt.Errorf("httpapi: %w", err)
	}
	return nil
}

// await waits for a group, or until ctx is done.
func await(ctx context.Context, group *sync.WaitGroup) error {
	done := make(chan struct{})
	go func() { // ends with the group
		group.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Create creates a backup, as POST /backups/create does, and returns its
// identifier.
func (s *Server) Create(ctx context.Context) (id string, err error) {
	repo, err := s.opening.repository(ctx)
	if err != nil {
		return "", err
	}
	j, err := s.startCreation(ctx, repo)
	if err != nil {
		return "", err
	}
	st, err := j.Wait(ctx)
	return st.ID, err
}

// Count returns how many backups there are.
func (s *Server) Count(ctx context.Context) (int, error) {
	repo, err := s.opening.repository(ctx)
	if err != nil {
		return 0, err
	}
	all, err := s.stored(ctx, repo)
	return len(all), err
}

// Latest returns when the newest backup of this machine was made, the zero time
// if there is none.
func (s *Server) Latest(ctx context.Context) (time.Time, error) {
	repo, err := s.opening.repository(ctx)
	if err != nil {
		return time.Time{}, err
	}
	all, err := s.stored(ctx, repo)
	if err != nil {
		return time.Time{}, err
	}
	var latest time.Time
	for i := range all {
		if all[i].subject.Device == s.host && all[i].start.After(latest) {
			latest = all[i].start
		}
	}
	return latest, nil
}

// Running returns how many backups are being created and restored.
func (s *Server) Running() (creations, restorations int) { return s.jobs.Running() }

// platform is what the engine records of this machine.
func platform() string { return runtime.GOOS + "/" + runtime.GOARCH }

// jobEnded logs and reports a job that has ended.
func (s *Server) jobEnded(st job.Status) {
	report := JobReport{
		ID: st.ID, Restore: st.Kind == job.Restoration, State: string(st.State),
		Bytes: st.Subject.Bytes, Duration: st.Ended.Sub(st.Started), Error: st.Error,
	}
	level := slog.LevelInfo
	if st.State == job.Failed {
		level = slog.LevelError
	}
	s.opts.Logger.LogAttrs(context.Background(), level, "job ended", slog.String("kind", string(st.Kind)), slog.String("id", st.ID),
		slog.String("state", report.State), slog.Int64("bytes", report.Bytes), slog.Duration("took", report.Duration), slog.String("error", st.Error))
	s.opts.OnJob(report)
}
