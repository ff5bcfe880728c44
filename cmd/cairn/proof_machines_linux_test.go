package main

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cairn-backup/cairn/backend/backendtest/servertest"
)

// TestMachines lets six machines, each with a cache and a source of its own, back
// up, restore, forget, collect and die at random moments on one repository in an
// object store, over a network that swallows answers, cuts bodies and goes away.
// In the end every snapshot is compared with its source.
func TestMachines(t *testing.T) {
	t.Parallel()
	for name, far := range map[string]func(t *testing.T, p *program) (direct program){"s3": farS3, "azure": farAzure} {
		t.Run(name, func(t *testing.T) {
			p := newProgram(t)
			p.t = t
			direct := far(t, &p)
			direct.exits(0, "init")
			seed := seeded(t).Uint64()
			var wg sync.WaitGroup
			fleet := &fleet{trees: make(map[string]tree)}
			for i := range 6 {
				m := &machine{
					fleet: fleet, number: i, p: p, source: p.at(fmt.Sprintf("src%d", i)),
					rng: rand.New(rand.NewPCG(seed, uint64(i))), //nolint:gosec // an index
				}
				m.p.cache = p.at(fmt.Sprintf("cache%d", i))
				fillTree(t, m.source, scale[int64](1, 1, 30)*mib, byte(10+i))
				fillTree(t, filepath.Join(m.source, "same"), mib, 9)
				wg.Go(func() {
					for round := range scale(1, 2, 20) {
						m.round(t, round)
					}
				})
			}
			wg.Wait()
			if t.Failed() {
				return
			}
			direct.cache = p.at("another")
			left := direct.snapshots()
			for _, id := range left {
				want, ok := fleet.trees[id]
				if !ok { // of a machine that died before it could tell
					if fleet.killed == 0 {
						t.Errorf("snapshot %s is nobody's", id)
					}
					direct.exits(0, "restore", id, "--target", p.at("restored-"+id[:8]))
					continue
				}
				direct.restores(id, want)
			}
			direct.check()
			t.Logf("%d backups were told, %d processes killed, %d did not reach the store and were repeated, %d snapshots left",
				len(fleet.trees), fleet.killed, fleet.again, len(left))
			if len(left) < 6 {
				t.Errorf("%d snapshots are left of 6 machines", len(left))
			}
		})
	}
}

// A fleet is what the machines know together.
type fleet struct {
	mu     sync.Mutex // guards all
	trees  map[string]tree
	killed int
	again  int // that a process did not reach the store, and was started again
}

// A machine is one that backs up its own source.
type machine struct {
	fleet  *fleet
	number int
	p      program
	source string
	rng    *rand.Rand
}

// round is one day of a machine.
func (m *machine) round(t *testing.T, round int) {
	fail := func(r result) {
		if r.code != 0 {
			t.Errorf("machine %d, round %d: %v", m.number, round, r)
		}
	}
	// Who starts while the link is away for longer than the twenty seconds in
	// which a store has to answer first (retry.Policy.Contact) fails, cleanly, and
	// starts again, as a timer would do it.
	run := func(args ...string) result {
		for range 20 {
			if r := m.p.run(args...); r.code == 0 || linkAway() < 20*time.Second || !strings.Contains(r.stderr, "unreachable") {
				return r
			}
			m.fleet.mu.Lock()
			m.fleet.again++
			m.fleet.mu.Unlock()
		}
		return m.p.run(args...)
	}
	path := filepath.Join(m.source, fmt.Sprintf("new%d", round))
	if err := os.WriteFile(path, []byte(strings.Repeat(fmt.Sprint(m.number, round), 30_000)), 0o600); err != nil {
		t.Error(err)
		return
	}
	if m.rng.IntN(2) == 0 {
		s := m.p.start("backup", "--json", m.source)
		time.Sleep(time.Duration(m.rng.IntN(1500)) * time.Millisecond)
		_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL) // it may have ended
		if r := s.wait(); r.code != 0 {
			m.fleet.mu.Lock()
			m.fleet.killed++
			m.fleet.mu.Unlock()
		} else {
			m.tell(t, r)
		}
	}
	r := run("backup", "--json", m.source)
	fail(r)
	if t.Failed() {
		return
	}
	id := m.tell(t, r)
	dir := m.p.at(fmt.Sprintf("back%d-%d", m.number, round))
	fail(run("restore", id, "--target", dir))
	if t.Failed() {
		return
	}
	m.fleet.mu.Lock()
	want := m.fleet.trees[id]
	m.fleet.mu.Unlock()
	if got := readTree(t, dir); !want.equal(got) {
		t.Errorf("machine %d, round %d: the restore differs", m.number, round)
	}
	fail(run("forget", "--keep-last", "2"))
	if m.number%3 == 0 {
		fail(run("gc", "--keep-deleted", "0", "--dead-share", "1%"))
	}
}

// tell notes what a snapshot was made of.
func (m *machine) tell(t *testing.T, r result) string {
	id := snapshotOfOutput(t, r)
	tr := readTree(t, m.source)
	m.fleet.mu.Lock()
	defer m.fleet.mu.Unlock()
	m.fleet.trees[id] = maps.Clone(tr)
	return id
}

// linkAway is for how long the link of badNetwork goes away.
func linkAway() time.Duration {
	return scale(200*time.Millisecond, 500*time.Millisecond, 30*time.Second)
}

// badNetwork puts a bad network in front of a server, which also goes away for a
// while now and then, and returns where it is reached.
func badNetwork(t *testing.T, upstream string) string {
	proxy := servertest.NewProxy(t, upstream)
	every := func(k, at int64) func(int64, *http.Request) bool {
		return func(n int64, _ *http.Request) bool { return n%k == at }
	}
	proxy.Set(servertest.Fault{Latency: 2 * time.Millisecond, Swallow: every(41, 3), Cut: every(43, 5), CutRequest: every(47, 7)})
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		answered := int64(0) // when the link came back
		for {
			select {
			case <-stop:
				return
			case <-time.After(max(4*time.Second, linkAway())):
			}
			// A server that is slow, on a machine that has much else to do, could else
			// answer nobody before the link goes away again.
			for proxy.Answered() < answered+20 {
				select {
				case <-stop:
					return
				case <-time.After(100 * time.Millisecond):
				}
			}
			proxy.Away()
			select {
			case <-stop:
			case <-time.After(linkAway()):
			}
			answered = proxy.Answered()
			proxy.Back()
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-done
		requests, swallowed, cut := proxy.Counts()
		t.Logf("%d requests, %d answers swallowed, %d bodies cut", requests, swallowed, cut)
		if swallowed < 10 || cut < 10 {
			t.Errorf("too few faults to prove anything")
		}
	})
	return proxy.URL
}

func farS3(t *testing.T, p *program) program {
	o := servertest.S3(t)
	at := func(endpoint string) string { return "s3://" + o.Bucket + "/" + o.Prefix + "?endpoint=" + endpoint }
	p.extra = append(slices.Clip(p.extra), "AWS_ACCESS_KEY_ID="+o.AccessKey, "AWS_SECRET_ACCESS_KEY="+o.SecretKey)
	p.repo = at(badNetwork(t, o.Endpoint))
	direct := *p
	direct.repo = at(o.Endpoint)
	return direct
}

func farAzure(t *testing.T, p *program) program {
	o := servertest.Azure(t)
	account := "/" + o.Account
	at := func(endpoint string) string {
		return "azblob://" + o.Container + "/" + o.Prefix + "?account=" + o.Account + "&endpoint=" + endpoint + account
	}
	p.extra = append(slices.Clip(p.extra), "AZURE_STORAGE_KEY="+o.Key)
	upstream := strings.TrimSuffix(o.Endpoint, account)
	p.repo = at(badNetwork(t, upstream))
	direct := *p
	direct.repo = at(upstream)
	return direct
}
