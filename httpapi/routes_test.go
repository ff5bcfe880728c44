package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/engine/target"
	"github.com/cairn-backup/cairn/httpapi/internal/job"
)

// TestDocument holds that openapi.json lists exactly the routes that are served.
func TestDocument(t *testing.T) {
	for _, metrics := range []http.Handler{nil, http.NotFoundHandler()} {
		s := &Server{opts: Options{Metrics: metrics}}
		served := make(map[string]bool)
		for _, rt := range s.table() {
			served[rt.pattern] = true
		}
		data, err := s.openAPI()
		if err != nil {
			t.Fatal(err)
		}
		var doc struct {
			Paths map[string]map[string]struct {
				OperationID string         `json:"operationId"`
				Responses   map[string]any `json:"responses"`
			} `json:"paths"`
			Components struct {
				Schemas map[string]any `json:"schemas"`
			} `json:"components"`
		}
		if err := json.Unmarshal(data, &doc); err != nil {
			t.Fatal(err)
		}
		listed := make(map[string]bool)
		for path, methods := range doc.Paths {
			for method, op := range methods {
				listed[strings.ToUpper(method)+" "+path] = true
				if op.OperationID == "" || len(op.Responses) == 0 {
					t.Errorf("%s %s has no id or no answers", method, path)
				}
			}
		}
		if !maps.Equal(served, listed) {
			t.Errorf("served: %q\nlisted: %q", slices.Sorted(maps.Keys(served)), slices.Sorted(maps.Keys(listed)))
		}
		for _, ref := range strings.Split(string(data), `"#/components/schemas/`)[1:] {
			name, _, _ := strings.Cut(ref, `"`)
			if doc.Components.Schemas[name] == nil {
				t.Errorf("there is no schema %s", name)
			}
		}
	}
}

// TestRequired holds that a server is not opened without what it needs.
func TestRequired(t *testing.T) {
	dir := t.TempDir()
	for _, data := range []Data{{}, {Source: source.Dir(dir)}, {Target: target.Swap(dir)}} {
		if _, err := Open(t.Context(), nil, data, Options{}); err == nil {
			t.Errorf("Open(%+v) = nil", data)
		}
	}
	full := Data{Source: source.Dir(dir), Target: target.Swap(dir)}
	for _, opts := range []Options{{Token: "two words"}, {Origins: []string{"no origin"}}} {
		open := Opener(func(context.Context) (Repository, error) { return nil, errUnknown })
		if _, err := Open(t.Context(), open, full, opts); err == nil {
			t.Errorf("Open with %+v = nil", opts)
		}
	}
}

func TestNewer(t *testing.T) {
	for version, want := range map[string]bool{
		"1.0.0": false, "0.9.9": false, "1.0": false, "1.0.1": true, "1.1.0": true, "2.0.0": true, "10.0.0": true, "1.0.0.1": true, "1.0.0.0": false, "x": false, "": false,
	} {
		if got := newer(version); got != want {
			t.Errorf("newer(%q) = %v", version, got)
		}
	}
}

// TestAppendBackups holds that the list is what encoding/json makes of it.
func TestAppendBackups(t *testing.T) {
	type backupsModel struct {
		Iterable []backupModel  `json:"iterable"`
		Indices  map[string]int `json:"indices"`
	}
	var all []backup
	for n := range 40 {
		want := backupsModel{Iterable: []backupModel{}, Indices: map[string]int{}}
		for i := range all {
			want.Iterable, want.Indices[all[i].id] = append(want.Iterable, all[i].model()), i
		}
		data, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		if got := appendBackups(nil, all); string(got) != string(data) {
			t.Fatalf("got  %s\nwant %s", got, data)
		}
		host := []string{"", "host", "host", "a \"quoted\" <one>\x00\n\u2028\xff", "other"}[n%5]
		all = append(all, backup{
			id: fmt.Sprintf("1.0.0_%d", 1_700_000_000_000+n*77_777_777), start: time.Unix(int64(n), 0),
			subject: job.Subject{Device: host, Platform: "linux/amd64", Bytes: int64(n) << 40},
		})
	}
}
