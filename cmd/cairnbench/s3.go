package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// s3Arg is the word with which operations through S3 are measured.
const s3Arg = "s3"

// The keys, the bucket and the region of the server, which listens on this
// machine only.
const (
	s3Key    = "cairnbench"
	s3Secret = "cairnbench-secret"
	s3Bucket = "bench"
	s3Region = "us-east-1"
)

// s3Options are what the command line says after the word s3.
type s3Options struct {
	options
	size    int64 // of the large file, MiB; 0: no line is measured
	noOps   bool  // only lines are measured
	latency time.Duration
	windows []int64 // KiB; 0: any number of bytes
}

// runS3 measures Cairn and restic through S3: every operation of one set, with
// its requests, and restores of one large file over lines with a latency.
func runS3(ctx context.Context, o s3Options, stdout, stderr io.Writer) (err error) {
	dir, err := os.MkdirTemp(o.dir, "cairnbench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removeAll(dir)) }()
	server, err := startS3(ctx, dir)
	if err != nil {
		return err
	}
	defer server.stop()
	b := &s3Bench{opts: o, dir: dir, server: server, out: stdout, say: func(format string, args ...any) {
		_, _ = fmt.Fprintf(stderr, format+"\n", args...) // progress, for who watches
	}}
	if err := b.findTools(ctx); err != nil {
		return err
	}
	if !o.noOps {
		if err := b.operations(ctx); err != nil {
			return err
		}
	}
	return b.far(ctx)
}

func parseS3(args []string, stderr io.Writer) (s3Options, error) {
	o := s3Options{options: options{paths: make(map[string]string)}}
	windows := ""
	f := flag.NewFlagSet("cairnbench "+s3Arg, flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.dir, "dir", "", "work below `DIR` (default: the directory for temporary files)")
	f.IntVar(&o.rounds, "rounds", 3, "how often everything is measured; medians are shown")
	f.Float64Var(&o.scale, "scale", 1, "size of the generated source tree")
	f.BoolVar(&o.noGoroot, "no-goroot", false, "generate the source tree instead of copying that of the Go toolchain")
	f.Int64Var(&o.size, "size", 1024, "size of the large file in `MiB`; 0: no line is measured")
	f.BoolVar(&o.noOps, "line", false, "measure only the restores over lines")
	f.DurationVar(&o.latency, "latency", 50*time.Millisecond, "round trip that the line adds")
	f.StringVar(&windows, "windows", "256,1024,4096,0", "comma-separated `KiB` that a connection has under way at most; 0: no limit")
	for _, name := range []string{"cairn", "restic"} {
		f.Func(name, "measure the "+name+" at `PATH`", func(path string) error { o.paths[name] = path; return nil })
	}
	if err := f.Parse(args); err != nil {
		return o, err
	}
	for text := range strings.SplitSeq(windows, ",") {
		var n int64
		if _, err := fmt.Sscanf(text, "%d", &n); err != nil || n < 0 {
			return o, fmt.Errorf("--windows: %q is no number of KiB", text)
		}
		o.windows = append(o.windows, n)
	}
	return o, errors.Join(
		check(f.NArg() == 0, "unexpected argument %q", f.Arg(0)),
		check(o.rounds > 0, "--rounds must be at least 1"),
		check(o.size >= 0 && o.latency >= 0, "--size and --latency must not be negative"),
	)
}

// An s3Server is versitygw over a directory, in a process of its own.
type s3Server struct {
	addr, data string
	cmd        *exec.Cmd
	stdin      io.Closer
}

// startS3 builds the server of the tests and starts it. It must be called in the
// root of a checkout.
func startS3(ctx context.Context, dir string) (*s3Server, error) {
	root, err := firstLine(exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}"))
	if err != nil {
		return nil, fmt.Errorf("find the module: %w", err)
	}
	program := filepath.Join(dir, "s3server")
	build := exec.CommandContext(ctx, "go", "build", "-o", program, ".")
	build.Dir = filepath.Join(root, "testdata", "s3server")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the S3 server: %w\n%s", err, out)
	}
	s := &s3Server{data: filepath.Join(dir, "store", "data", s3Bucket)}
	if err := os.MkdirAll(s.data, 0o700); err != nil { // a bucket is a directory
		return nil, err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.addr = l.Addr().String()
	if err := l.Close(); err != nil {
		return nil, err
	}
	s.cmd = exec.CommandContext(ctx, program, "-addr", s.addr, "-dir", filepath.Join(dir, "store"))
	s.cmd.Env = environment("S3SERVER_KEY="+s3Key, "S3SERVER_SECRET="+s3Secret)
	if s.stdin, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	for begin := time.Now(); ; {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", s.addr)
		if err == nil {
			return s, c.Close()
		}
		if time.Since(begin) > time.Minute {
			s.stop()
			return nil, fmt.Errorf("the S3 server does not answer: %w", err)
		}
		if err := wait(ctx, 50*time.Millisecond); err != nil {
			s.stop()
			return nil, err
		}
	}
}

func (s *s3Server) stop() {
	_ = s.stdin.Close()      // it ends then,
	_ = s.cmd.Process.Kill() // and does not have to think about it
	_ = s.cmd.Wait()
}

// An s3Tool is a program that is measured.
type s3Tool struct {
	program
	prefix string // in the bucket
}

// command returns one of a tool, on its repository behind the server at url.
func (t s3Tool) command(url string, p place, dir string, args ...string) *exec.Cmd {
	env := []string{"AWS_ACCESS_KEY_ID=" + s3Key, "AWS_SECRET_ACCESS_KEY=" + s3Secret, "AWS_DEFAULT_REGION=" + s3Region}
	if t.label == "restic" {
		at := "s3:" + url + "/" + s3Bucket + "/" + t.prefix
		return t.run(dir, append(env, "RESTIC_PASSWORD="+passphrase), append([]string{"--quiet", "--repo", at, "--cache-dir", p.cache()}, args...)...)
	}
	at := fmt.Sprintf("s3://%s/%s?endpoint=%s&region=%s", s3Bucket, t.prefix, url, s3Region)
	return t.run(dir, env, append([]string{"--json", "--no-progress", "--repo", at, "--cache-dir", p.cache(), "--key-file", p.key()}, args...)...)
}
