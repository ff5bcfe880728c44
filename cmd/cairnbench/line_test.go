package main

import (
	"bytes"
	"io"
	"net"
	"runtime"
	"testing"
	"time"
)

// TestLine: a line delays each way by half of its latency, keeps to its window,
// and changes nothing.
func TestLine(t *testing.T) {
	echo, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()
	const latency = 40 * time.Millisecond
	for window, least := range map[int64]time.Duration{
		0:         latency,
		128 << 10: 16 * latency / 2, // 1 MiB by 64 KiB in 20 ms, each way, at once
	} {
		l, err := newLine(t.Context(), echo.Addr().String(), latency, window)
		if err != nil {
			t.Fatal(err)
		}
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", l.addr())
		if err != nil {
			t.Fatal(err)
		}
		sent := make([]byte, 1<<20)
		newRandom("line", 0).Bytes(sent)
		begin := time.Now()
		go func() { _, _ = c.Write(sent) }()
		got := make([]byte, len(sent))
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, sent) {
			t.Errorf("what came back differs, %v", err)
		}
		if took := time.Since(begin); took < least {
			t.Errorf("with a window of %d bytes 1 MiB came back after %v, want %v at least", window, took, least)
		}
		_ = c.Close()
		l.close()
	}
}

// TestLineProcess: a line in a process of its own carries bytes, and holds what is
// under way, so that it does not count as the peak of what is measured.
func TestLineProcess(t *testing.T) {
	const sent = 64 << 20
	server, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	all := make(chan error, 1)
	go func() {
		c, err := server.Accept()
		if err == nil {
			_, err = io.CopyN(c, zeros{}, sent)
		}
		all <- err
		_, _ = io.Copy(io.Discard, c) // until the client ends
		_ = c.Close()
	}()
	before := sizeOfThis(t)
	l, err := startLine(t.Context(), server.Addr().String(), time.Millisecond, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", l.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := <-all; err != nil { // all of it is under way, though nobody reads
		t.Fatal(err)
	}
	if grown := sizeOfThis(t) - before; grown > sent/2 {
		t.Errorf("this process grew by %d bytes while %d were under way", grown, sent)
	}
	if n, err := io.CopyN(io.Discard, c, sent); err != nil {
		t.Errorf("%d bytes arrived, %v", n, err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func sizeOfThis(t *testing.T) int64 {
	t.Helper()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.Sys) //nolint:gosec // a size
}

func TestParseS3(t *testing.T) {
	o, err := parseS3([]string{"--windows", "64,0", "--rounds", "1"}, io.Discard)
	if err != nil || len(o.windows) != 2 || o.windows[0] != 64 || o.size != 1024 || o.latency != 50*time.Millisecond {
		t.Errorf("parseS3 = %+v, %v", o, err)
	}
	for _, bad := range [][]string{{"--windows", "x"}, {"--windows", "-1"}, {"--rounds", "0"}, {"more"}, {"--size", "-1"}} {
		if _, err := parseS3(bad, io.Discard); err == nil {
			t.Errorf("parseS3(%q) finds nothing wrong", bad)
		}
	}
}
