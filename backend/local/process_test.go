package local

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/cairn-backup/cairn/backend"
)

const raceKeys = 150

func raceKey(i int) backend.Key { return backend.Key(fmt.Sprintf("log/%020d", i)) }

func raceContent(racer string, key backend.Key) []byte {
	return bytes.Repeat([]byte(racer+" "+string(key)+"\n"), 2000)
}

// racer is what the processes of TestProcesses do: they put all keys, in
// order, and write down which they have won.
func racer(t *testing.T, name, dir string) {
	t.Helper()
	b := New(dir)
	for i := range raceKeys {
		key := raceKey(i)
		switch err := b.Put(t.Context(), key, raceContent(name, key)); {
		case err == nil:
			fmt.Fprintf(os.Stdout, "won %s\n", key)
		case !errors.Is(err, backend.ErrExist):
			t.Fatalf("%s: Put(%s) = %v", name, key, err)
		}
	}
}

// TestProcesses lets processes race for keys and kills one of them in the
// midst of it. Every object is whole, has one winner, and is the winner's.
func TestProcesses(t *testing.T) {
	if name, ok := os.LookupEnv("CAIRN_TEST_RACER"); ok {
		racer(t, name, os.Getenv("CAIRN_TEST_DIR"))
		return
	}
	exe, err := os.Executable()
	if err != nil {
		t.Skipf("cannot run this test as another process: %v", err)
	}
	b, dir := newStore(t)
	// Finds out which way of publishing the others will use.
	if err := errors.Join(b.Put(t.Context(), "probe", nil), b.Delete(t.Context(), "probe")); err != nil {
		t.Fatal(err)
	}
	const killed = "racer-0"
	var mu sync.Mutex // guards winners
	winners := make(map[backend.Key]string)
	var wg sync.WaitGroup
	for i := range 3 {
		name := fmt.Sprintf("racer-%d", i)
		cmd := exec.CommandContext(t.Context(), exe, "-test.run=^TestProcesses$")
		cmd.Env = append(os.Environ(), "CAIRN_TEST_RACER="+name, "CAIRN_TEST_DIR="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			won := 0
			for lines := bufio.NewScanner(out); lines.Scan(); {
				key, ok := strings.CutPrefix(lines.Text(), "won ")
				if !ok {
					continue // what package testing writes
				}
				mu.Lock()
				if other, twice := winners[backend.Key(key)]; twice {
					t.Errorf("%s and %s have both won %s", other, name, key)
				}
				winners[backend.Key(key)] = name
				mu.Unlock()
				if won++; won == 10 && name == killed {
					_ = cmd.Process.Kill() // it may be done by now
				}
			}
			_, _ = io.Copy(io.Discard, out) // it is at its end
			if err := cmd.Wait(); err != nil && name != killed {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	wg.Wait()

	for i := range raceKeys {
		key := raceKey(i)
		got := read(t, b, key)
		winner, ok := winners[key]
		if !ok {
			winner = killed // who did not live to tell
		}
		if !bytes.Equal(got, raceContent(winner, key)) {
			t.Errorf("%s holds %d bytes, %.20q..., want those of %s", key, len(got), got, winner)
		}
	}
	if got := keys(t, b, ""); len(got) != raceKeys {
		t.Errorf("%d objects, want %d", len(got), raceKeys)
	}
	if method(b.method.Load()) != unnamed {
		return // a temporary file may be left over
	}
	temps, err := fs.Glob(os.DirFS(dir), filepath.Join("log", tempPrefix+"*"))
	if err != nil || len(temps) != 0 {
		t.Errorf("the killed process leaves %v, %v", temps, err)
	}
}
