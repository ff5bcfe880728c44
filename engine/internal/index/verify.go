package index

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dgraph-io/badger/v4"
	"github.com/zeebo/blake3"
)

// Why the files are verified before Badger sees them: Badger reads tables in
// goroutines of its own, at Open and when it compacts, and there a damaged
// length is a panic or a log.Fatal that no one can recover, in the process
// that embeds us, and again at every start. A flipped bit in a length of the
// write-ahead log makes it allocate gigabytes, a shortened MANIFEST makes it
// delete tables in silence. So verify checks every checksum of Badger's files
// with code of ours, which returns errors.
//
// An index that was closed in order has a file CLEAN, which fixes names and
// sizes of all files and the content of MANIFEST. Then tables are verified up
// to verifyBudget bytes, taken at random, and of the others what Badger reads
// when it opens them. An index that was not closed, because the process was
// killed or fell over damage that was missed, is verified whole.

// verifyBudget bounds what verify reads of an index that was closed in order,
// in bytes. 92 MB, a million entries, take 30 ms when cached.
const verifyBudget = 128 << 20

const (
	cleanName    = "CLEAN"
	manifestName = "MANIFEST"
)

// verify returns an error unless the database in dir can be given to Badger.
// It removes CLEAN and what Badger makes anew.
func verify(dir string, budget int64) error {
	files, err := listFiles(dir)
	if err != nil {
		return err
	}
	clean, err := isClean(dir, files)
	if err != nil {
		return err
	}
	// CLEAN goes first: from here on the index counts as open.
	for _, name := range append([]string{cleanName}, files.disposable...) {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if !clean {
		budget = 1<<63 - 1
	}
	last, err := verifyTables(dir, files, budget)
	if err != nil {
		return err
	}
	return verifyLogs(dir, files.logs, last)
}

// A fileList is what a database directory holds.
type fileList struct {
	manifest   int64            // size of MANIFEST in bytes, -1 if there is none
	tables     map[uint64]int64 // sizes in bytes of the tables by number
	logs       []logInfo        // write-ahead logs, by number
	disposable []string         // names of files that hold nothing of ours
}

type logInfo struct {
	number uint64
	size   int64 // bytes
}

// listFiles sorts the files of dir. A file that Badger would not have made is
// damage: one called -1.sst ends the process.
func listFiles(dir string) (fileList, error) {
	list := fileList{manifest: -1, tables: make(map[uint64]int64)}
	infos, err := os.ReadDir(dir)
	if err != nil {
		return list, err
	}
	for _, e := range infos {
		info, err := e.Info()
		if err != nil {
			return list, err
		}
		name := e.Name()
		n, ext := parseName(name)
		switch {
		case !info.Mode().IsRegular():
			return list, fmt.Errorf("%w: %s is no regular file", ErrDamaged, name)
		case name == manifestName:
			list.manifest = info.Size()
		case name == cleanName:
		case name == "LOCK", name == "KEYREGISTRY", name == "DISCARD", name == "MANIFEST-REWRITE",
			name == "REWRITE-KEYREGISTRY", ext == ".vlog":
			// Values are below the threshold of the value log, and no
			// encryption is on: these are empty of content.
			list.disposable = append(list.disposable, name)
		case ext == ".sst":
			list.tables[n] = info.Size()
		case ext == ".mem":
			list.logs = append(list.logs, logInfo{n, info.Size()})
		default:
			return list, fmt.Errorf("%w: unknown file %s", ErrDamaged, name)
		}
	}
	slices.SortFunc(list.logs, func(a, b logInfo) int { return int(a.number) - int(b.number) })
	return list, nil
}

// parseName splits the name of a numbered file. It returns no extension if the
// name is not exactly as Badger writes it.
func parseName(name string) (number uint64, ext string) {
	ext = filepath.Ext(name)
	width, ok := map[string]int{".sst": 6, ".mem": 5, ".vlog": 6}[ext]
	digits := strings.TrimSuffix(name, ext)
	if !ok || len(digits) < width || len(digits) > 9 || strings.Trim(digits, "0123456789") != "" {
		return 0, ""
	}
	for _, c := range []byte(digits) {
		number = number*10 + uint64(c-'0')
	}
	return number, ext
}

// digest returns the content of CLEAN: a hash over the names and sizes of the
// files and over MANIFEST.
func digest(dir string, list fileList) ([]byte, error) {
	manifest, err := os.ReadFile(filepath.Join(dir, manifestName))
	if err != nil {
		return nil, err
	}
	h := blake3.New() // takes everything: its Write returns no error
	_, _ = fmt.Fprintf(h, "cairn index %d\nmanifest %d\n", schemaVersion, len(manifest))
	_, _ = h.Write(manifest)
	numbers := make([]uint64, 0, len(list.tables))
	for n := range list.tables {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	for _, n := range numbers {
		_, _ = fmt.Fprintf(h, "table %d %d\n", n, list.tables[n])
	}
	for _, l := range list.logs {
		_, _ = fmt.Fprintf(h, "log %d %d\n", l.number, l.size)
	}
	return h.Sum(nil), nil
}

// isClean reports whether the database was closed in order. A CLEAN that does
// not describe the files is damage, but an empty one is what a power failure
// leaves of it, as it is not synced.
func isClean(dir string, list fileList) (bool, error) {
	stored, err := os.ReadFile(filepath.Join(dir, cleanName))
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(stored) == 0 {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	want, err := digest(dir, list)
	if err != nil {
		return false, err
	}
	if string(stored) != string(want) {
		return false, fmt.Errorf("%w: files are not those that were closed", ErrDamaged)
	}
	return true, nil
}

// markClean writes CLEAN, after Badger has closed the database.
func markClean(dir string) error {
	list, err := listFiles(dir)
	if err != nil {
		return err
	}
	sum, err := digest(dir, list)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, cleanName), sum, 0o600)
}

// verifyTables checks the tables that MANIFEST lists, whole ones up to budget
// bytes. It returns the number of the last commit in them.
func verifyTables(dir string, list fileList, budget int64) (last uint64, err error) {
	if list.manifest < 0 && len(list.tables)+len(list.logs) == 0 {
		return 0, nil // as Badger was not begun
	}
	manifest, err := readManifest(filepath.Join(dir, manifestName))
	if err != nil {
		return 0, err
	}
	numbers := make([]uint64, 0, len(manifest.Tables))
	for n, t := range manifest.Tables {
		if t.KeyID != 0 || t.Compression != 0 || t.Level >= 7 {
			return 0, fmt.Errorf("%w: table %d is not one of ours", ErrDamaged, n)
		}
		numbers = append(numbers, n)
	}
	rand.Shuffle(len(numbers), func(i, j int) { numbers[i], numbers[j] = numbers[j], numbers[i] })
	var v tableVerifier
	for _, n := range numbers {
		size, ok := list.tables[n]
		if !ok {
			return 0, fmt.Errorf("%w: table %d is missing", ErrDamaged, n)
		}
		path := filepath.Join(dir, fmt.Sprintf("%06d.sst", n))
		if size <= budget {
			budget -= size
			err = v.verify(path, size)
		} else {
			err = v.skim(path, size)
		}
		if err != nil {
			return 0, fmt.Errorf("table %d: %w", n, err)
		}
	}
	return v.last, nil
}

// readManifest reads MANIFEST with Badger's own code, in this goroutine. A
// record in part at the end is damage: a kill does not leave one.
func readManifest(path string) (badger.Manifest, error) {
	f, err := os.Open(path)
	if err != nil {
		return badger.Manifest{}, err
	}
	defer f.Close() // only read
	info, err := f.Stat()
	if err != nil {
		return badger.Manifest{}, err
	}
	m, end, err := badger.ReplayManifestFile(f, 0, badger.DefaultOptions("").WithLogger(nil))
	if err == nil && end != info.Size() {
		err = errors.New("MANIFEST is cut short")
	}
	return m, damage(err)
}
