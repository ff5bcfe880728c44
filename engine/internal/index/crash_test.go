package index

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"
)

// childDir names the environment variable that makes a child of the test
// binary: the directory in which it works until it is killed.
const childDir = "CAIRN_INDEX_TEST_CHILD"

const crashSegment = 1500 // entries

// TestKillChild is the child of TestKill. It loads one segment after the
// other, and prints the number of each that is in.
func TestKillChild(t *testing.T) {
	dir := os.Getenv(childDir)
	if dir == "" {
		t.Skip("runs as the child of TestKill")
	}
	x := mustOpen(t, Options{Dir: dir})
	loaded, err := x.Loaded()
	if err != nil {
		t.Fatal(err)
	}
	for n := len(loaded); ; n++ {
		mustInsert(t, x, entries(n*crashSegment, (n+1)*crashSegment))
		if err := x.MarkLoaded(segment(n)); err != nil {
			t.Fatal(err)
		}
		if err := x.SetTag(Tag{N: uint64(n + 1)}); err != nil {
			t.Fatal(err)
		}
		fmt.Println(n + 1)
		if n%40 == 39 {
			mustClose(t, x)
			x = mustOpen(t, Options{Dir: dir})
		}
	}
}

func TestKill(t *testing.T) {
	rounds := scale(4, 4, 40)
	total, acknowledged := 0, 0
	dir := t.TempDir()
	for round := range rounds {
		if round%4 == 0 {
			total += acknowledged
			dir, acknowledged = t.TempDir(), 0
		}
		said := runAndKill(t, dir, time.Duration(30+rand.IntN(350))*time.Millisecond)
		acknowledged = max(acknowledged, said)

		x := mustOpen(t, Options{Dir: dir})
		if x.Rebuilt() && acknowledged > 0 {
			t.Fatalf("round %d: a kill cost the index", round)
		}
		loaded, err := x.Loaded()
		if err != nil {
			t.Fatal(err)
		}
		tag, _ := x.Tag()
		if len(loaded) < acknowledged || int(tag.N) < acknowledged || int(tag.N) > len(loaded) {
			t.Fatalf("round %d: %d segments, tag %d, want %d of each", round, len(loaded), tag.N, acknowledged)
		}
		for n := range len(loaded) {
			if !loaded[segment(n)] {
				t.Fatalf("round %d: %d segments are loaded, but not segment %d", round, len(loaded), n)
			}
		}
		checkAllAtOnce(t, x, len(loaded)*crashSegment)
		if round%3 == 0 {
			mustClose(t, x) // else the next child finds what this process left open
		} else {
			leak(t, x)
		}
	}
	t.Logf("%d entries after %d kills", (total+acknowledged)*crashSegment, rounds)
}

func TestOpenLockedByAnotherProcess(t *testing.T) {
	dir := t.TempDir()
	cmd, out := startChild(t, dir)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("child says %q, %v", line, err)
	}
	if _, err := Open(Options{Dir: dir}); !errors.Is(err, ErrLocked) {
		t.Errorf("Open = %v, want ErrLocked", err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // killed
	if x := mustOpen(t, Options{Dir: dir}); x.Rebuilt() {
		t.Error("Rebuilt() = true after a kill")
	}
}

func startChild(t *testing.T, dir string) (*exec.Cmd, io.Reader) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKillChild$")
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, out
}

// runAndKill runs a child for a while, kills it, and returns the last number
// that it printed.
func runAndKill(t *testing.T, dir string, after time.Duration) int {
	t.Helper()
	cmd, out := startChild(t, dir)
	timer := time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	last := 0
	for lines := bufio.NewScanner(out); lines.Scan(); {
		n, err := strconv.Atoi(lines.Text())
		if err != nil {
			t.Errorf("child says %q", lines.Text())
		}
		last = n
	}
	if err := cmd.Wait(); cmd.ProcessState.Exited() {
		t.Fatalf("child ended by itself: %v", err)
	}
	return last
}

// leak lets go of the lock of f and of nothing else, as a kill would.
func (f *front) leak() error {
	// Badger holds a lock on its directory, too, and would write on: close it
	// without CLEAN.
	if d := f.db.Swap(nil); d != nil {
		d.abandon()
	}
	return f.lock.Close()
}

// leak lets go of the lock of x and of nothing else, as a kill would.
func leak(t *testing.T, x *Index) {
	t.Helper()
	if err := x.store.(*front).leak(); err != nil {
		t.Fatal(err)
	}
	x.store = nil
}

// checkAllAtOnce fails the test unless all entries below n are there and
// right.
func checkAllAtOnce(t testing.TB, x *Index, n int) {
	t.Helper()
	if misses := checkNoneWrong(t, x, n); misses != 0 {
		t.Fatalf("%d of %d entries are missing", misses, n)
	}
}

// checkNoneWrong fails the test if one of the entries below n is wrong, and
// returns how many are missing.
func checkNoneWrong(t testing.TB, x *Index, n int) (misses int) {
	t.Helper()
	for from := 0; from < n; from += 5000 {
		es := entries(from, min(n, from+5000))
		places, found, err := lookupAll(x, es)
		if err != nil {
			t.Fatalf("LookupMany = %v", err)
		}
		for i := range es {
			if !found[i] {
				misses++
			} else if places[i] != es[i].Place {
				t.Fatalf("Lookup(%d) = %+v, want %+v", from+i, places[i], es[i].Place)
			}
		}
	}
	return misses
}
