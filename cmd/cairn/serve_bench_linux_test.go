package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// cpuOf returns the CPU time that a process took so far, which Linux tells in
// hundredths of a second.
func cpuOf(b *testing.B, pid int) time.Duration {
	b.Helper()
	p, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(p[strings.LastIndexByte(string(p), ')')+1:])) // from field 3 on, see proc_pid_stat(5)
	user, err := strconv.Atoi(fields[11])
	if err != nil {
		b.Fatal(err)
	}
	system, err := strconv.Atoi(fields[12])
	if err != nil {
		b.Fatal(err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}

// BenchmarkServePolling is a creation by a server in a process of its own, 256 MiB
// of new random data, while its status is asked for 1,000 times a second over 16
// connections that stay open, and without. The time that counts is the server's.
func BenchmarkServePolling(b *testing.B) {
	for _, rate := range []int{0, 1000} {
		b.Run(strconv.Itoa(rate), func(b *testing.B) {
			repo, env := aRepository(b)
			data := filepath.Join(b.TempDir(), "data")
			if err := os.Mkdir(data, 0o700); err != nil {
				b.Fatal(err)
			}
			server := startChild(b, env, "-r", repo, "--data", data)
			var spent, took time.Duration
			polls := int64(0)
			for n := 0; b.Loop(); n++ {
				b.StopTimer()
				fillRandom(b, data, n)
				b.StartTimer()
				before, begin := cpuOf(b, server.cmd.Process.Pid), time.Now()
				polls += polled(b, server.url, rate)
				took += time.Since(begin)
				spent += cpuOf(b, server.cmd.Process.Pid) - before
			}
			b.ReportMetric(float64(spent.Milliseconds())/float64(b.N), "cpu-ms/op")
			b.ReportMetric(float64(polls)/took.Seconds(), "polls/s")
		})
	}
}

func fillRandom(b *testing.B, dir string, seed int) {
	b.Helper()
	source := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	p := make([]byte, 4<<20)
	for i := range 64 {
		_, _ = source.Read(p) // never returns an error
		if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), p, 0o600); err != nil {
			b.Fatal(err)
		}
	}
}

// polled creates a backup, asks for its status at a rate, and returns how often.
func polled(b *testing.B, url string, rate int) int64 {
	b.Helper()
	req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, url+"/backups/create/streamed", nil)
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("Accept", "application/x-ndjson")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	events := json.NewDecoder(resp.Body)
	var event struct {
		Status string
		Backup struct{ ID string }
	}
	if err := events.Decode(&event); err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.Context())
	var polls atomic.Int64
	var group sync.WaitGroup
	const conns = 16
	for i := range min(rate, conns) {
		group.Go(func() {
			every := conns * time.Second / time.Duration(rate)
			if err := poll(ctx, url, event.Backup.ID, every, every*time.Duration(i)/conns, &polls); err != nil {
				b.Error(err)
			}
		})
	}
	for err == nil {
		err = events.Decode(&event)
	}
	stop()
	group.Wait()
	if event.Status != "COMPLETED" {
		b.Fatalf("it ends with %s, %v", event.Status, err)
	}
	return polls.Load()
}

// poll asks for a status over one connection, from offset on, until ctx is done.
// What it is late by it makes up for.
func poll(ctx context.Context, url, id string, every, offset time.Duration, polls *atomic.Int64) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		return err
	}
	defer conn.Close()
	request := "GET /backup/" + id + "/creation/status HTTP/1.1\r\nHost: localhost\r\n\r\n"
	in := bufio.NewReader(conn)
	for next := time.Now().Add(offset); ; next = next.Add(every) {
		time.Sleep(time.Until(next))
		if ctx.Err() != nil {
			return nil
		}
		if _, err := io.WriteString(conn, request); err != nil {
			return err
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close() // it was read
		if err != nil || resp.StatusCode != http.StatusOK {
			return fmt.Errorf("status %d: %w", resp.StatusCode, err)
		}
		polls.Add(1)
	}
}
