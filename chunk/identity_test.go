package chunk

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"testing"
)

func readVectors[T any](t *testing.T, name string) []T {
	t.Helper()
	raw, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var rows []T
	if err := json.Unmarshal(raw, &rows); err != nil {
		t.Fatal(err)
	}
	if len(rows) == 0 {
		t.Fatalf("%s is empty", name)
	}
	return rows
}

func parseKey(t *testing.T, s string) Key {
	t.Helper()
	var k Key
	if n, err := hex.Decode(k[:], []byte(s)); err != nil || n != len(k) {
		t.Fatalf("key %q: %d bytes, %v", s, n, err)
	}
	return k
}

func TestHasherVectors(t *testing.T) {
	hashers := map[string]*Hasher{} // one for each key, used again
	for _, v := range readVectors[struct {
		Key    string
		Length int
		ID     ID
	}](t, "hash.json") {
		h := hashers[v.Key]
		if h == nil {
			h = NewHasher(parseKey(t, v.Key))
			hashers[v.Key] = h
		}
		in := make([]byte, v.Length)
		for i := range in {
			in[i] = byte(i % 251)
		}
		if got := h.Sum(in); got != v.ID {
			t.Errorf("Sum(key %s, %d bytes) = %s, want %s", v.Key, v.Length, got, v.ID)
		}
	}
}

func TestHasherAllocs(t *testing.T) {
	h, data := NewHasher(Key{1}), randomBytes(1, 40<<10)
	var id ID
	if n := testing.AllocsPerRun(20, func() { id = h.Sum(data) }); n != 0 || id.IsZero() {
		t.Errorf("Sum: %v allocations, want 0; id %s", n, id)
	}
}

func TestDerivePolynomialVectors(t *testing.T) {
	for _, v := range readVectors[struct{ Key, Pol string }](t, "pol.json") {
		want, err := strconv.ParseUint(v.Pol, 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		got, err := DerivePolynomial(parseKey(t, v.Key))
		if err != nil || got != Pol(want) {
			t.Errorf("DerivePolynomial(%s) = %#x, %v; want %#x", v.Key, uint64(got), err, want)
		}
		if got.deg() != laneDegree {
			t.Errorf("degree %d, want %d", got.deg(), laneDegree)
		}
	}
}

func TestID(t *testing.T) {
	id := NewHasher(Key{}).Sum([]byte("x"))
	text := id.String()
	if got, err := ParseID(text); err != nil || got != id {
		t.Errorf("ParseID(%q) = %s, %v", text, got, err)
	}
	if id.Short() != text[:8] {
		t.Errorf("Short() = %q, want %q", id.Short(), text[:8])
	}
	if id.IsZero() || !(ID{}).IsZero() {
		t.Error("IsZero is wrong")
	}
	for _, c := range []struct {
		a, b ID
		want int
	}{{ID{1}, ID{2}, -1}, {ID{2}, ID{1}, 1}, {id, id, 0}, {ID{31: 1}, ID{}, 1}} {
		if got := c.a.Compare(c.b); got != c.want || strings.Compare(c.a.String(), c.b.String()) != c.want {
			t.Errorf("%s.Compare(%s) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
	raw, err := json.Marshal(map[ID]ID{id: id})
	if err != nil || string(raw) != `{"`+text+`":"`+text+`"}` {
		t.Errorf("json = %s, %v", raw, err)
	}
}

func TestParseIDRefuses(t *testing.T) {
	good := strings.Repeat("ab", 32)
	for _, s := range []string{
		"", "ab", good[:63], good + "a", good + "\n", " " + good[1:], strings.ToUpper(good),
		good[:63] + "B", good[:63] + "g", good[:63] + "\x00", "0x" + good[2:],
	} {
		kept := ID{9}
		if got, err := ParseID(s); !errors.Is(err, ErrID) || !got.IsZero() {
			t.Errorf("ParseID(%q) = %s, %v; want ErrID", s, got, err)
		}
		if err := kept.UnmarshalText([]byte(s)); !errors.Is(err, ErrID) || kept != (ID{9}) {
			t.Errorf("UnmarshalText(%q) = %v and the ID %s; want ErrID and the ID unchanged", s, err, kept)
		}
	}
}

func FuzzParseID(f *testing.F) {
	f.Add(strings.Repeat("0", 64))
	f.Add(strings.Repeat("aF", 32))
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseID(s)
		if err == nil && id.String() != s {
			t.Errorf("ParseID(%q).String() = %q", s, id)
		}
	})
}

func TestKeyNeverShows(t *testing.T) {
	key := Key([]byte("0123456789abcdefghijklmnopqrstuv"))
	marks := []string{"012345", hex.EncodeToString(key[:4]), strings.ToUpper(hex.EncodeToString(key[6:12])), "48 49 50", "0x30, 0x31", "[48"}
	type exported struct{ K Key }

	var out []string
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%b", "%08x", "%t"} {
		out = append(out, fmt.Sprintf(verb, key), fmt.Sprintf(verb, &key), fmt.Sprintf(verb, exported{key}),
			fmt.Sprintf(verb, []Key{key}), fmt.Sprintf(verb, map[string]Key{"k": key}))
	}
	out = append(out, key.String(), key.GoString(), fmt.Sprint(key), fmt.Errorf("bad key %v", key).Error())
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("m", slog.Any("key", key), slog.Any("in", exported{key}))
	slog.New(slog.NewJSONHandler(&log, nil)).Info("m", slog.Any("key", key), slog.Any("in", exported{key}))
	raw, err := json.Marshal(exported{key})
	if err != nil {
		t.Fatal(err)
	}
	out = append(out, log.String(), string(raw))

	for _, s := range out {
		if !strings.Contains(s, redacted) {
			t.Errorf("%q lacks the placeholder", s)
		}
		for _, m := range marks {
			if strings.Contains(s, m) {
				t.Errorf("%q shows the key", s)
			}
		}
	}
}
