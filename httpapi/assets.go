package httpapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/manifest"
)

// backupAssets stores the assets of the body, or, where there are none, creates
// a backup of the data.
func (s *Server) backupAssets(w http.ResponseWriter, r *http.Request) error {
	repo, err := s.opening.repository(r.Context())
	if err != nil {
		return err
	}
	body, err := readBody(w, r, s.opts.MaxBody)
	if err != nil {
		return err
	}
	if body == nil {
		j, err := s.startCreation(r.Context(), repo)
		if err != nil {
			return err
		}
		st, err := j.Wait(r.Context())
		if err := ended(st, err); err != nil {
			return err
		}
		return noContent(w)
	}
	var assets struct {
		Iterable []json.RawMessage `json:"iterable"`
	}
	if err := json.Unmarshal(body, &assets); err != nil {
		return refuse(http.StatusBadRequest, "the body is no Assets: %v", err)
	}
	if assets.Iterable == nil {
		return refuse(http.StatusBadRequest, "the body is no Assets: it has no iterable")
	}
	return s.storeAssets(w, r, repo, assets.Iterable)
}

// backupAsset stores the asset of the body, if there is one.
func (s *Server) backupAsset(w http.ResponseWriter, r *http.Request) error {
	repo, err := s.opening.repository(r.Context())
	if err != nil {
		return err
	}
	body, err := readBody(w, r, s.opts.MaxBody)
	if err != nil {
		return err
	}
	if body == nil {
		return noContent(w)
	}
	return s.storeAssets(w, r, repo, []json.RawMessage{body})
}

// storeAssets makes one snapshot of the assets.
func (s *Server) storeAssets(w http.ResponseWriter, r *http.Request, repo Repository, assets []json.RawMessage) error {
	src, err := newAssets(assets)
	if err != nil {
		return err
	}
	if len(src.files) == 0 {
		return noContent(w)
	}
	select {
	case s.storing <- struct{}{}:
		defer func() { <-s.storing }()
	case <-r.Context().Done():
		return r.Context().Err()
	}
	if _, err := repo.Backup(r.Context(), src, engine.BackupOptions{Name: s.data.Name, Host: s.host}); err != nil {
		return err
	}
	return noContent(w)
}

// Assets are in a directory of this name, below the one root of their snapshots,
// which does not show in paths.
const (
	assetsDir  = "assets"
	assetsRoot = "root"
	assetsPath = assetsRoot + "/" + assetsDir
)

// An assetSource is assets as files, one each.
type assetSource struct {
	files map[string]assetFile // by name
	names []string             // of files, sorted
}

type assetFile struct {
	data    []byte
	updated time.Time
}

var (
	_ source.Source = (*assetSource)(nil)
	_ source.View   = (*assetSource)(nil)
)

// newAssets takes each asset as it is, known to this program or not, but for the
// space between its parts. Of two with one id the last one counts.
func newAssets(assets []json.RawMessage) (*assetSource, error) {
	a := &assetSource{files: make(map[string]assetFile, len(assets))}
	for i, raw := range assets {
		var asset struct {
			ID      string          `json:"id"`
			Updated json.RawMessage `json:"updated"`
		}
		if err := json.Unmarshal(raw, &asset); err != nil || asset.ID == "" {
			return nil, refuse(http.StatusBadRequest, "asset %d has no id, which is a string that is not empty", i)
		}
		var compact bytes.Buffer
		if err := json.Compact(&compact, raw); err != nil {
			return nil, refuse(http.StatusBadRequest, "asset %d is no JSON: %v", i, err)
		}
		compact.WriteByte('\n')
		a.files[assetName(asset.ID)] = assetFile{data: compact.Bytes(), updated: updatedOf(asset.Updated)}
	}
	a.names = slices.Sorted(maps.Keys(a.files))
	return a, nil
}

// assetName returns the name of an asset's file: its id if that can be a name on
// every system, and else a hash of it.
func assetName(id string) string {
	plain := func(r rune) bool {
		return r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '-' || r == '_' || r == '.'
	}
	const most = 120 // bytes; names of 255 are possible nearly everywhere
	if len(id) <= most && id[0] != '.' && id[0] != '-' && !strings.ContainsFunc(id, func(r rune) bool { return !plain(r) }) && !device(id) {
		return id + ".json"
	}
	sum := sha256.Sum256([]byte(id))
	return "sha256-" + hex.EncodeToString(sum[:]) + ".json"
}

// device reports whether Windows takes a name, with whatever extension, for a
// device.
func device(name string) bool {
	base, _, _ := strings.Cut(strings.ToUpper(name), ".")
	switch base {
	case "CON", "PRN", "AUX", "NUL":
		return true
	}
	return len(base) == 4 && (strings.HasPrefix(base, "COM") || strings.HasPrefix(base, "LPT"))
}

// updatedOf returns when an asset says that it was changed, or 1970: the same
// asset must give the same file.
func updatedOf(raw json.RawMessage) time.Time {
	var updated struct {
		Value string `json:"value"`
	}
	if json.Unmarshal(raw, &updated) == nil {
		for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999"} {
			if t, err := time.Parse(layout, updated.Value); err == nil && t.Year() >= 1970 && t.Year() < 2262 {
				return t
			}
		}
	}
	return time.Unix(0, 0)
}

// Open returns the assets: they are their own view.
func (a *assetSource) Open(context.Context) (source.View, error) { return a, nil }

// Info says what they are.
func (a *assetSource) Info() source.Info {
	return source.Info{
		Kind: manifest.KindAssets, Name: assetsDir, Roots: []manifest.Root{{Path: "/", Name: assetsRoot}},
	}
}

// ReadDir yields the directories, and the files.
func (a *assetSource) ReadDir(ctx context.Context, path string) iter.Seq2[manifest.Node, error] {
	return func(yield func(manifest.Node, error) bool) {
		switch {
		case ctx.Err() != nil:
			yield(manifest.Node{}, ctx.Err())
		case path == "":
			yield(manifest.Node{Name: assetsRoot, Kind: manifest.Dir, Mode: 0o700}, nil)
		case path == assetsRoot:
			yield(manifest.Node{Name: assetsDir, Kind: manifest.Dir, Mode: 0o700}, nil)
		case path == assetsPath:
			for _, name := range a.names {
				f := a.files[name]
				n := manifest.Node{Name: name, Kind: manifest.File, Mode: 0o600, Size: uint64(len(f.data)), MTime: manifest.TimeOf(f.updated)}
				if !yield(n, nil) {
					return
				}
			}
		default:
			yield(manifest.Node{}, fmt.Errorf("read %s: %w", path, fs.ErrNotExist))
		}
	}
}

// OpenFile opens an asset.
func (a *assetSource) OpenFile(_ context.Context, path string) (io.ReadCloser, error) {
	f, ok := a.files[strings.TrimPrefix(path, assetsPath+"/")]
	if !ok {
		return nil, fmt.Errorf("open %s: %w", path, fs.ErrNotExist)
	}
	return io.NopCloser(bytes.NewReader(f.data)), nil
}

// Finish does nothing: assets in memory do not change.
func (a *assetSource) Finish(context.Context) error { return nil }

// Close does nothing.
func (a *assetSource) Close() error { return nil }
