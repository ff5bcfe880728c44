package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
)

// What the servers of object stores are started with; package servertest of the
// module has the same.
const (
	accessKey = "cairntest"
	secretKey = "cairntest-secret"
	bucket    = "cairn"

	// minio is the second opinion of the long proofs: its license is the AGPL,
	// and nothing of it is linked.
	minio = "github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c"

	// starting is for how long a server may take to answer. Azurite reads
	// thousands of files first, on a machine that compiles beside it.
	starting = 3 * time.Minute

	// building bounds how long it takes to build or install a server. MinIO takes
	// five minutes of one CPU from an empty cache, a quarter of an hour on a busy
	// machine.
	building = 30 * time.Minute
	// telling is how often it says that it is still building.
	telling = 30 * time.Second
)

// A server is one that tests run against.
type server struct {
	variable string // that says where it is
	start    func(ctx context.Context, out io.Writer, dir, addr string) (*exec.Cmd, error)
}

func servers(o options) []server {
	all := []server{{"CAIRN_TEST_S3", versitygw}, {"CAIRN_TEST_AZURE", azurite}}
	if o.minio {
		all = append(all, server{"CAIRN_TEST_MINIO", startMinIO})
	}
	return all
}

// startServers starts those of which the environment does not say where they
// are, and sets its variables. Where CI=true each of them must start; elsewhere
// the tests that need one are skipped. stop ends them.
func startServers(ctx context.Context, o options, out io.Writer) (stop func(), err error) {
	dir, err := os.MkdirTemp("", "cairn-servers-")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	all := servers(o)
	commands := make([]*exec.Cmd, len(all))
	stop = func() {
		cancel() // kills them
		for _, cmd := range commands {
			if cmd != nil {
				_ = cmd.Wait() // it was killed
			}
		}
		_ = os.RemoveAll(dir) // what stays is in the directory for temporary files
	}
	var g errgroup.Group
	for i, s := range all {
		if os.Getenv(s.variable) != "" {
			continue
		}
		g.Go(func() error {
			begin := time.Now()
			own := filepath.Join(dir, s.variable)
			addr, err := freeAddress()
			if err == nil {
				err = os.Mkdir(own, 0o700)
			}
			if err == nil {
				commands[i], err = s.start(ctx, out, own, addr)
			}
			if err == nil {
				err = waitFor(ctx, addr)
				if err != nil {
					err = fmt.Errorf("%w; it said: %s", err, lastOf(filepath.Join(own, "log")))
				}
			}
			if err == nil {
				err = os.Setenv(s.variable, "http://"+addr)
			}
			if err != nil && os.Getenv("CI") != "true" {
				fmt.Fprintf(out, "left out: the tests that need %s: %v\n", s.variable, err)
				return nil
			}
			if err != nil {
				return fmt.Errorf("%s: %w", s.variable, err)
			}
			fmt.Fprintf(out, "ok    %s=http://%s  up after %.1fs\n", s.variable, addr, time.Since(begin).Seconds())
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		stop()
		return nil, err
	}
	return stop, nil
}

// versitygw is embedded in a program of its own, whose module has the SDK in the
// library's versions, so that most of it is in the build cache.
func versitygw(ctx context.Context, out io.Writer, dir, addr string) (*exec.Cmd, error) {
	program := filepath.Join(dir, "s3server")
	build := exec.CommandContext(ctx, "go", "build", "-o", program, ".")
	build.Dir = filepath.Join("testdata", "s3server")
	if err := construct(out, "build the S3 server", build); err != nil {
		return nil, err
	}
	// A bucket is a directory.
	if err := os.MkdirAll(filepath.Join(dir, "data", bucket), 0o700); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, "-addr", addr, "-dir", dir)
	cmd.Env = append(os.Environ(), "S3SERVER_KEY="+accessKey, "S3SERVER_SECRET="+secretKey)
	if _, err := cmd.StdinPipe(); err != nil { // it ends when we do, whatever happens
		return nil, err
	}
	return cmd, begin(cmd, filepath.Join(dir, "log"))
}

// azurite is installed once for each lock file, below .cache, where go ./...
// does not look.
func azurite(ctx context.Context, out io.Writer, dir, addr string) (*exec.Cmd, error) {
	home, err := installAzurite(ctx, out)
	if err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "node", filepath.Join(home, "node_modules", "azurite", "dist", "src", "blob", "main.js"), "--blobHost", host, "--blobPort", port,
		"--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--silent")
	cmd.Dir = dir
	return cmd, begin(cmd, filepath.Join(dir, "log"))
}

func installAzurite(ctx context.Context, out io.Writer) (string, error) {
	from := filepath.Join("testdata", "azurite")
	lock, err := os.ReadFile(filepath.Join(from, "package-lock.json"))
	if err != nil {
		return "", err
	}
	home, err := filepath.Abs(filepath.Join(".cache", fmt.Sprintf("azurite-%x", sha256.Sum256(lock))[:24]))
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(home); err == nil {
		return home, nil
	}
	if err := os.MkdirAll(filepath.Dir(home), 0o700); err != nil {
		return "", err
	}
	work, err := os.MkdirTemp(filepath.Dir(home), "installing-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	if err := os.CopyFS(work, os.DirFS(from)); err != nil {
		return "", err
	}
	npm := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	npm.Dir = work
	if err := construct(out, "install Azurite (it needs node and npm)", npm); err != nil {
		return "", err
	}
	if err := os.Rename(work, home); err != nil {
		if _, there := os.Stat(home); there != nil {
			return "", err
		} // else another run was faster
	}
	return home, nil
}

// startMinIO builds it once for each version, as installAzurite does.
func startMinIO(ctx context.Context, out io.Writer, dir, addr string) (*exec.Cmd, error) {
	home, err := filepath.Abs(filepath.Join(".cache", fmt.Sprintf("minio-%x", sha256.Sum256([]byte(minio)))[:24]))
	if err != nil {
		return nil, err
	}
	program := filepath.Join(home, "minio")
	if _, err := os.Stat(program); err != nil {
		install := exec.CommandContext(ctx, "go", "install", minio)
		install.Env = append(os.Environ(), "GOBIN="+home)
		if err := construct(out, "build MinIO", install); err != nil {
			return nil, err
		}
	}
	data := filepath.Join(dir, "data")
	if err := os.MkdirAll(filepath.Join(data, bucket), 0o700); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, "server", "--quiet", "--address", addr, data)
	cmd.Env = append(os.Environ(), "MINIO_ROOT_USER="+accessKey, "MINIO_ROOT_PASSWORD="+secretKey, "MINIO_BROWSER=off")
	return cmd, begin(cmd, filepath.Join(dir, "log"))
}

// construct runs a command that builds or installs something, says now and then that
// it still does, and gives up after a time. Its error holds what it said.
func construct(out io.Writer, what string, cmd *exec.Cmd) error {
	// Compilers that a killed go command leaves behind hold its output open.
	cmd.WaitDelay = 10 * time.Second
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	done := wait(cmd)
	clock := time.NewTicker(telling)
	defer clock.Stop()
	for {
		select {
		case err := <-done:
			if err != nil {
				err = fmt.Errorf("%s: %w: %s", what, err, said.Bytes())
			}
			return err
		case <-clock.C:
			fmt.Fprintf(out, "      %s: at it for %.0fs\n", what, time.Since(begin).Seconds())
			if time.Since(begin) > building {
				_ = cmd.Process.Kill() // it may have ended just now
				<-done
				return fmt.Errorf("%s: not done after %v, and given up", what, building)
			}
		}
	}
}

// wait returns where the end of a command arrives.
func wait(cmd *exec.Cmd) <-chan error {
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	return done
}

// begin starts cmd with its output in a file.
func begin(cmd *exec.Cmd, log string) error {
	f, err := os.Create(log)
	if err != nil {
		return err
	}
	defer f.Close() // the server has it now
	w := bufio.NewWriter(f)
	fmt.Fprintln(w, cmd.Args)
	if err := w.Flush(); err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = f, f
	return cmd.Start()
}

// lastOf returns the end of what a server said.
func lastOf(log string) string {
	said, err := os.ReadFile(log)
	if err != nil {
		return err.Error()
	}
	return string(said[max(0, len(said)-2000):])
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

func waitFor(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, starting)
	defer cancel()
	for {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err == nil {
			return c.Close()
		}
		select {
		case <-ctx.Done():
			return errors.Join(errors.New("it does not answer"), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
