// Command s3server is the S3 server of the tests: versitygw over a directory.
// It prints a line of its own when it is ready, and ends when its standard
// input does, so that no test can leave one behind.
//
//	s3server -addr 127.0.0.1:7070 -dir DIR
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"
)

func main() {
	addr := flag.String("addr", "", "`host:port` to listen on")
	dir := flag.String("dir", "", "existing `directory` for buckets and the server's own files")
	flag.Parse()
	if err := run(*addr, *dir); err != nil {
		fmt.Fprintln(os.Stderr, "s3server:", err)
		os.Exit(1)
	}
}

func run(addr, dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	data, users := filepath.Join(dir, "data"), filepath.Join(dir, "iam")
	for _, d := range []string{data, users} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, bufio.NewReader(os.Stdin))
		cancel()
		time.Sleep(time.Second) // what it does not end by itself
		os.Exit(0)
	}()
	store, err := posix.New(data, meta.XattrMeta{}, posix.PosixOpts{})
	if err != nil {
		return err
	}
	go func() {
		for ctx.Err() == nil {
			if c, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
				_ = c.Close()
				fmt.Println("ready")
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	return embedgw.RunVersityGW(ctx, store, &embedgw.Config{
		RootUserAccess: os.Getenv("S3SERVER_KEY"), RootUserSecret: os.Getenv("S3SERVER_SECRET"),
		Ports: []string{addr}, MaxConnections: 4096, MaxRequests: 2048, MultipartMaxParts: 10000,
		KeepAlive: true, Quiet: true, IAMDir: users,
		IAMCacheTTL: 120, IAMCachePrune: 3600, // seconds; 0 makes its janitor spin
	})
}
