package httpapi_test

import (
	"maps"
	"strings"
	"testing"
)

func TestLifeOfABackup(t *testing.T) {
	w := newWorld(t).start()
	if r := w.ask("GET", "/backups", nil); r.code != 200 || !strings.Contains(r.body, `"iterable":[]`) {
		t.Fatalf("an empty list is %d %s", r.code, r.body)
	}
	before := w.files()
	id := w.create()
	w.write("one.txt", "changed")
	w.write("new.txt", "new")
	if got := w.ids(); len(got) != 1 || got[0] != id {
		t.Fatalf("list = %v, want %s", got, id)
	}
	if r := w.ask("GET", "/backup/"+id, nil); r.code != 200 || *decode[backupJSON](t, r.body).ID != id {
		t.Errorf("get = %d %s", r.code, r.body)
	}
	r := w.ask("POST", "/backup/"+id+"/restore", "null")
	if r.code != 200 || *decode[backupJSON](t, r.body).ID != id {
		t.Fatalf("restore = %d %s", r.code, r.body)
	}
	if got := w.files(); !maps.Equal(got, before) {
		t.Errorf("after the restore there are %d files", len(got))
	}
	for _, path := range []string{"/creation/status", "/restoration/status"} {
		r := w.ask("GET", "/backup/"+id+path, nil)
		if st := decode[progressJSON](t, r.body); r.code != 200 || st.Status != "COMPLETED" || st.Value != "COMPLETED" || *st.Percentage != 100 {
			t.Errorf("%s = %d %s", path, r.code, r.body)
		}
	}
	if r := w.ask("POST", "/backups/"+id+"/delete", "{}"); r.code != 204 || r.body != "" {
		t.Errorf("delete = %d %s", r.code, r.body)
	}
	if got := w.ids(); len(got) != 0 {
		t.Errorf("after the deletion there are %v", got)
	}
	if r := w.ask("GET", "/backup/"+id, nil); r.code != 500 {
		t.Errorf("a deleted backup is %d %s", r.code, r.body)
	}
	if r := w.ask("GET", "/backup/"+id+"/creation/status", nil); r.code != 404 {
		t.Errorf("the status of a deleted backup is %d %s", r.code, r.body)
	}
}
