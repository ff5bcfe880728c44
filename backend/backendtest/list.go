package backendtest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/cairn-backup/cairn/backend"
)

// listOrder uses keys whose byte order is not the order of a directory walk:
// '-' is below '/', and '/' is below the digits.
func (s *suite) listOrder() {
	b := s.open()
	keys := []backend.Key{
		"-", "-a/b", "0", "0-/x", "00",
		"a--", "a-/b", "a-0", "a-b-c/x", "a-b/0", "a-b/z", "a-b0", "a/-", "a/--/x", "a/0", "a/b-c",
		"a/b/c", "a/b/d/e", "a/b0", "a/c", "a0", "a0-", "a00/x", "aa", "b-/x", "b/x", "bb/x", "z",
	}
	if !slices.IsSorted(keys) {
		s.Fatalf("the keys of this test are not in order")
	}
	for i, j := range rand.New(rand.NewPCG(1, 2)).Perm(len(keys)) {
		s.put(b, keys[j], random(1, i))
	}
	s.wantKeys(b, "", keys)
	for info, err := range b.List(s.Context(), "") {
		if err != nil {
			s.Fatalf("List yields %v", err)
		}
		stat, err := b.Stat(s.Context(), info.Key)
		if err != nil || stat.Size != info.Size {
			s.Errorf("List yields %s with %d bytes, Stat = %d, %v", info.Key, info.Size, stat.Size, err)
		}
	}
	// Every prefix of every key, with and without the slash.
	for _, key := range keys {
		for n := range len(key) + 1 {
			s.wantKeys(b, key[:n], below(keys, key[:n]))
		}
	}
}

func (s *suite) listPrefix() {
	b := s.open()
	s.wantKeys(b, "", nil) // an empty store
	s.wantKeys(b, "packs/", nil)
	keys := []backend.Key{"config", "keys/1", "keys/2", "keys2/1", "packs/aa/1", "packs/ab/1", "packs/ab/2"}
	for _, key := range keys {
		s.put(b, key, []byte(key))
	}
	for _, prefix := range []backend.Key{
		"", "c", "config", "config/", "configs", "k", "keys", "keys/", "keys/1", "keys2", "packs/", "packs/a",
		"packs/ab", "packs/ab/", "packs/ab/2", "packs/b", "packs/aa/1/", "zzz", "a", "none/", "none/x/",
		backend.Key(strings.Repeat("a", backend.MaxKeyLen)),
	} {
		s.wantKeys(b, prefix, below(keys, prefix))
	}
}

// listMany lists more objects than a store returns at once.
func (s *suite) listMany() {
	b := s.open()
	keys := make([]backend.Key, s.ListedKeys)
	for i := range keys {
		keys[i] = backend.Key(fmt.Sprintf("log/%020d", i))
	}
	for _, i := range rand.New(rand.NewPCG(3, 4)).Perm(len(keys)) {
		s.put(b, keys[i], []byte("x"))
	}
	s.put(b, "keys/1", []byte("x"))
	s.put(b, "packs/1", []byte("x"))
	s.wantKeys(b, "log/", keys)
	s.wantKeys(s.open(), "", slices.Concat([]backend.Key{"keys/1"}, keys, []backend.Key{"packs/1"}))
}

// listStop breaks off listings and changes the store during one.
func (s *suite) listStop() {
	b := s.open()
	for i := range 20 {
		s.put(b, backend.Key(fmt.Sprintf("dir%d/%02d", i/10, i)), []byte("x"))
	}
	seq := b.List(s.Context(), "")
	for range 2 { // a sequence can be ranged over again, from the start
		n := 0
		for info, err := range seq {
			if want := backend.Key(fmt.Sprintf("dir0/%02d", n)); err != nil || info.Key != want {
				s.Fatalf("List yields %s, %v as number %d; want %s", info.Key, err, n, want)
			}
			if n++; n == 5 {
				break
			}
		}
	}
	for info, err := range b.List(s.Context(), "dir") {
		if err != nil {
			s.Fatalf("List, with deletions under way, yields %v", err)
		}
		if err := b.Delete(s.Context(), info.Key); err != nil {
			s.Fatalf("Delete(%s) during List = %v", info.Key, err)
		}
	}
	s.wantKeys(b, "", nil)
}

// below returns those of keys that begin with prefix.
func below(keys []backend.Key, prefix backend.Key) []backend.Key {
	var found []backend.Key
	for _, key := range keys {
		if strings.HasPrefix(string(key), string(prefix)) {
			found = append(found, key)
		}
	}
	return found
}
