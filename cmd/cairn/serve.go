package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/cairn-backup/cairn/engine/target"
	"github.com/cairn-backup/cairn/httpapi"
)

// The variables that cairn serve reads in place of its flags.
const (
	envServeToken = "CAIRN_TOKEN" // the token itself: a flag would show it to everyone
	envServeAddr  = "CAIRN_ADDR"
	envServeData  = "CAIRN_DATA"
	envServeName  = "CAIRN_NAME"
)

const (
	// serveAddr is the documented address. Its port is privileged on Linux.
	serveAddr = "localhost:1000"
	// serveOther is proposed where that port is not to be had.
	serveOther = "localhost:5323"
	// stopTimeout is how long jobs may take to be taken back at the end.
	stopTimeout = 30 * time.Second
)

type serveFlags struct {
	addr, data, name string
	tokenFile        string
	tlsCert, tlsKey  string
	insecure         bool
	origins, hosts   []string
	allowChanging    bool
	stateDir         string
	maxCreations     int
	maxBody          int64
	logFormat        string
	schedule         scheduleFlags
	listen           func(ctx context.Context, address string) ([]listener, error) // default: listenAll
	ready            func(url string)                                              // told when requests are answered; for tests
}

func (a *app) serveCommand() *cobra.Command {
	f := serveFlags{listen: listenAll, ready: func(string) {}}
	cmd := &cobra.Command{
		Use:   "serve --data PATH",
		Short: "Serve the documented backup API for a local database",
		Long: `Serve the documented Backup and Backups HTTP API: clients create, list, restore
and delete backups of the data at PATH, which is a directory or one SQLite
database.

The server listens on this machine's loopback addresses only, at ` + serveAddr + `
unless --addr says otherwise. Any other address needs a token, in a file or in
` + envServeToken + `, and TLS or --insecure.

A directory is backed up only as it was at one moment: if something changes while
it is read it is read again, three times at most. A restore replaces the data as a
whole, or leaves them as they are.

With --every backups are made by themselves. After each, those of this machine
that the --keep flags do not keep are forgotten, as cairn forget does, and what
nothing needs any more is collected.`,
		Example: `  cairn serve --data ~/app/data --addr ` + serveOther + `
  cairn serve --data /var/lib/app/app.db --every 6h --keep-daily 7 --keep-weekly 4
  cairn serve --data /srv/app --addr 0.0.0.0:5323 --token-file token --tls-cert cert.pem --tls-key key.pem`,
		Annotations: map[string]string{longCommand: "serve"},
		Args:        atMost(0),
		RunE:        func(cmd *cobra.Command, _ []string) error { return a.serve(cmd.Context(), f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.addr, "addr", "", "`host:port` to listen on (default: "+serveAddr+"; $"+envServeAddr+")")
	flags.StringVar(&f.data, "data", "", "`path` of the directory or SQLite database that is backed up and restored ($"+envServeData+")")
	flags.StringVar(&f.name, "name", "", "`name` of the data set (default: default; $"+envServeName+")")
	flags.StringVar(&f.tokenFile, "token-file", "", "`file` with the token that requests must carry ($"+envServeToken+" holds the token itself)")
	flags.StringVar(&f.tlsCert, "tls-cert", "", "`file` with the certificate chain, PEM")
	flags.StringVar(&f.tlsKey, "tls-key", "", "`file` with its private key, PEM")
	flags.BoolVar(&f.insecure, "insecure", false, "listen on other addresses without TLS: whoever sees the traffic sees the token")
	flags.StringArrayVar(&f.origins, "allow-origin", nil, "`origin` of web pages that may use the server, such as https://app.example (may be repeated)")
	flags.StringArrayVar(&f.hosts, "allow-host", nil, "host `name` by which requests may address the server (may be repeated)")
	flags.BoolVar(&f.allowChanging, "allow-changing", false, "store data that keep changing while they are read, marked with the tag changing")
	a.compressionFlag(flags)
	flags.StringVar(&f.stateDir, "state-dir", "", "`directory` for the states of jobs")
	flags.IntVar(&f.maxCreations, "max-creations", 4, "how `many` backups are created at once")
	flags.Int64Var(&f.maxBody, "max-body", 64<<20, "how many `bytes` of assets one request may carry")
	flags.StringVar(&f.logFormat, "log-format", "text", "`text or json`, on standard error")
	f.schedule.add(flags)
	return cmd
}

// serve serves until ctx is done.
func (a *app) serve(ctx context.Context, f serveFlags) (err error) {
	if err := a.serveDefaults(&f); err != nil {
		return err
	}
	data, err := openData(f)
	if err != nil {
		return err
	}
	access, err := a.serveAccess(f)
	if err != nil {
		return err
	}
	logger := a.serveLogger(f)
	repos, err := a.newRepositories(ctx, data, logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, repos.close()) }()
	data.source.skip = append(a.ownDirs(repos.at), f.stateDir)
	m := newMetrics()
	server, err := httpapi.Open(ctx, repos.open, data.set(), httpapi.Options{
		Token: access.token, Hosts: access.hosts, Origins: f.origins, AllowChanging: f.allowChanging, StateDir: f.stateDir,
		MaxCreations: f.maxCreations, MaxBody: f.maxBody, Metrics: m.handler(), OnJob: m.job, OnRequest: m.request, Logger: logger,
	})
	if err != nil {
		return withHint(err, "%s", serveHint(err))
	}
	m.watch(server)
	listeners, err := f.listen(ctx, f.addr)
	if err != nil {
		return errors.Join(explainListen(f, err), stopServer(ctx, server))
	}
	running := serving{flags: f, access: access, server: server, repos: repos, listeners: listeners, metrics: m, logger: logger}
	if err := a.announce(ctx, running); err != nil {
		return errors.Join(err, closeAll(listeners), stopServer(ctx, server))
	}
	f.ready(running.url())
	return running.run(ctx)
}

// serveDefaults fills what no flag says, and checks what can be checked without
// looking at anything.
func (a *app) serveDefaults(f *serveFlags) error {
	for _, d := range []struct {
		value           *string
		variable, other string
	}{{&f.addr, envServeAddr, serveAddr}, {&f.data, envServeData, ""}, {&f.name, envServeName, "default"}} {
		if *d.value == "" {
			*d.value = a.env[d.variable]
		}
		if *d.value == "" {
			*d.value = d.other
		}
	}
	if f.data == "" {
		return usagef("cairn serve needs --data PATH: the directory or SQLite database that is backed up and restored")
	}
	if f.logFormat != "text" && f.logFormat != "json" {
		return usagef("--log-format is text or json, not %q", printableText(f.logFormat))
	}
	for _, origin := range f.origins {
		if err := http.NewCrossOriginProtection().AddTrustedOrigin(origin); err != nil {
			return usagef("--allow-origin is such as https://app.example, not %q", printableText(origin))
		}
	}
	if f.maxCreations < 1 || f.maxBody < 1 {
		return usagef("--max-creations and --max-body are at least 1")
	}
	if len(f.name) > 255 || strings.ToValidUTF8(f.name, "") != f.name {
		return usagef("--name has at most 255 bytes of UTF-8")
	}
	abs, err := filepath.Abs(f.data)
	if err != nil {
		return usagef("--data: %v", err)
	}
	f.data = abs
	if f.stateDir == "" {
		dir, err := a.userDir("XDG_STATE_HOME", ".local", "state")
		if err != nil {
			return withHint(usagef("there is no home directory for the states of jobs"), "give a directory with --state-dir")
		}
		// Two servers of one data set would be two sources of identifiers.
		sum := sha256.Sum256([]byte(f.name + "\x00" + f.data))
		f.stateDir = filepath.Join(dir, "serve", hex.EncodeToString(sum[:8]))
	}
	if f.stateDir, err = filepath.Abs(f.stateDir); err != nil {
		return usagef("--state-dir: %v", err)
	}
	return f.schedule.check()
}

// serveLogger returns the log of the server.
func (a *app) serveLogger(f serveFlags) *slog.Logger {
	level := slog.LevelInfo
	switch {
	case a.out.quiet:
		level = slog.LevelWarn
	case a.out.verbose:
		level = slog.LevelDebug
	}
	opts := &slog.HandlerOptions{Level: level}
	if f.logFormat == "json" {
		return slog.New(slog.NewJSONHandler(a.stderr, opts))
	}
	return slog.New(slog.NewTextHandler(a.stderr, opts))
}

// serveHint says what can be done about a server that does not start.
func serveHint(err error) string {
	switch {
	case errors.Is(err, target.ErrSwapUnclear):
		return "put the right one in place as the error says, then start again"
	case errors.Is(err, target.ErrInUse):
		return "another restore of the data is running: wait for its end"
	}
	return hintOf(err)
}

// A serving is a server that is about to answer.
type serving struct {
	flags     serveFlags
	access    serveAccess
	server    *httpapi.Server
	repos     *repositories
	listeners []listener
	metrics   *metrics
	logger    *slog.Logger
}

// url returns where the server is found.
func (s serving) url() string {
	l := s.listeners[0]
	scheme := "http://"
	if s.access.tls != nil {
		scheme = "https://"
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return scheme + l.Addr().String()
	}
	host := l.host
	if host == "" {
		host = "localhost" // all addresses
	}
	return scheme + net.JoinHostPort(host, port)
}

// run answers requests until ctx is done, then ends what runs.
func (s serving) run(ctx context.Context) error {
	web := &http.Server{
		Handler: s.server, TLSConfig: s.access.tls,
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(s.logger.Handler(), slog.LevelDebug), // mostly of clients that break off
	}
	failed := make(chan error, len(s.listeners))
	var group sync.WaitGroup
	for _, l := range s.listeners {
		group.Go(func() {
			if s.access.tls != nil {
				failed <- web.ServeTLS(l, "", "")
			} else {
				failed <- web.Serve(l)
			}
		})
	}
	scheduled, stop := context.WithCancel(ctx)
	group.Go(func() { s.schedule(scheduled) })
	var err error
	select {
	case <-ctx.Done():
		s.logger.InfoContext(ctx, "stopping: jobs that run are cancelled")
	case err = <-failed:
		err = fmt.Errorf("serve: %w", err)
	}
	stop()
	err = errors.Join(err, stopServer(ctx, s.server))
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if shutErr := web.Shutdown(late); shutErr != nil {
		err = errors.Join(err, web.Close()) // whoever still reads an answer has had his time
	}
	group.Wait()
	return err
}

// stopServer ends the jobs of a server and takes back what they did.
func stopServer(ctx context.Context, server *httpapi.Server) error {
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	return server.Close(late)
}

// announce tells people where the server is, and a line to try.
func (a *app) announce(ctx context.Context, s serving) error {
	f, repository := s.flags, s.repos.at.text
	backups, err := s.server.Count(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if a.out.json {
		doc := serveJSON{Event: "listening", Schema: schema, URL: s.url(), Data: f.data, Name: f.name, Repository: repository}
		if err == nil {
			doc.Backups = &backups
		}
		return a.out.document(doc)
	}
	count := plural(uint64(backups), "backup", "backups") //nolint:gosec // a count
	if err != nil {
		count = "not open yet: " + oneLine(err)
	}
	a.out.say("listening   %s", s.url())
	absent := ""
	if _, err := os.Lstat(f.data); errors.Is(err, fs.ErrNotExist) {
		absent = "; nothing is there yet: a restore makes it"
	}
	a.out.say("data        %s, as %q%s", printable(f.data), printableText(f.name), absent)
	a.out.say("repository  %s, %s", printable(repository), count)
	header := ""
	switch {
	case f.tokenFile != "":
		header = ` -H "Authorization: Bearer $(cat ` + shellQuote(f.tokenFile) + `)"`
	case s.access.token != "":
		header = ` -H "Authorization: Bearer $` + envServeToken + `"`
	}
	a.out.say("try         curl%s %s/backups", header, s.url())
	return nil
}

type serveJSON struct {
	Event      string `json:"event"`
	Schema     int    `json:"schema"`
	URL        string `json:"url"`
	Data       string `json:"data"`
	Name       string `json:"name"`
	Repository string `json:"repository"`
	Backups    *int   `json:"backups"` // null while the repository cannot be opened
}

// statData returns what is at the path of the data; nil if nothing is.
func statData(path string) (fs.FileInfo, error) {
	fi, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil //nolint:nilnil // a restore makes it
	case err != nil:
		return nil, err
	case !fi.IsDir() && !fi.Mode().IsRegular():
		return nil, fmt.Errorf("%s is neither a directory nor a regular file", printable(path))
	}
	return fi, nil
}
