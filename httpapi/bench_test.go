//go:build unix

package httpapi_test

import (
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cairn-backup/cairn/engine"
)

// cpu returns the CPU time that this process took so far.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// direct asks a server without a connection.
func direct(b *testing.B, w *world, method, path string) *recorder {
	b.Helper()
	req, err := http.NewRequestWithContext(b.Context(), method, "http://localhost"+path, nil)
	if err != nil {
		b.Fatal(err)
	}
	req.Body = http.NoBody
	rec := newRecorder()
	w.server.ServeHTTP(rec, req)
	return rec
}

// BenchmarkList is GET /backups with 10,000 backups, warm, at the server.
func BenchmarkList(b *testing.B) {
	w := newWorld(b)
	w.write("sub/two.bin", "")
	for i := range 10_000 {
		w.snapshot(engine.BackupOptions{Name: "default", Labels: map[string]string{"cairn.backup": fmt.Sprintf("1.0.0_%d", 1_700_000_000_000+i)}})
	}
	w.start()
	if n := len(w.ids()); n != 10_000 {
		b.Fatalf("%d backups", n)
	}
	runtime.GC()
	b.ReportAllocs()
	for b.Loop() {
		rec := direct(b, w, "GET", "/backups")
		b.SetBytes(int64(rec.body.Len()))
	}
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/list")
}

// BenchmarkCreate compares a creation through the API with the engine's call
// beneath, by CPU time: every file is read and stored.
func BenchmarkCreate(b *testing.B) {
	for _, how := range []string{"engine", "http"} {
		b.Run(how, func(b *testing.B) {
			w := newWorld(b)
			w.start()
			b.SetBytes(64 << 20)
			var spent time.Duration
			for n := 0; b.Loop(); n++ {
				b.StopTimer()
				for f := range 64 {
					w.write(fmt.Sprintf("f%d", f), random(uint64(n*64+f), 1<<20))
				}
				b.StartTimer()
				begin := cpu(b)
				if how == "http" {
					if r := w.ask("POST", "/backups/create", nil); r.code != 200 {
						b.Fatal(r.body)
					}
				} else {
					w.snapshot(engine.BackupOptions{Name: "default"})
				}
				spent += cpu(b) - begin
			}
			b.ReportMetric(float64(spent.Milliseconds())/float64(b.N), "cpu-ms/op")
		})
	}
}

// BenchmarkStatus is the status of a creation that runs, at the server, without a
// connection: see BenchmarkServePolling in cmd/cairn for one with all around it.
func BenchmarkStatus(b *testing.B) {
	w := newWorld(b)
	g := newGate(w)
	w.start()
	var group sync.WaitGroup
	group.Go(func() { direct(b, w, "POST", "/backups/create") })
	<-g.reached
	id := ""
	for _, f := range w.stateFiles() {
		if name, ok := strings.CutSuffix(f, ".json"); ok {
			id = strings.TrimPrefix(name, "creation-")
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if rec := direct(b, w, "GET", "/backup/"+id+"/creation/status"); !strings.Contains(rec.body.String(), "IN-PROGRESS") {
			b.Fatal(rec.body.String())
		}
	}
	g.open()
	group.Wait()
}
