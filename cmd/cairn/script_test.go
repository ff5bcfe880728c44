package main

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/crypto/ssh"
)

// The commands of the scripts.

// exits CODE COMMAND... runs a command, which must exit with that code.
func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%s: %v", args[1], err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("%s exits with %d, want %d", strings.Join(args[1:], " "), got, want)
	}
}

// jsonshape FILE WANT compares the keys and types of the last line of FILE,
// which must hold nothing but JSON, one document a line, with WANT.
func cmdJSONShape(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: jsonshape FILE WANT")
	}
	docs := documents(ts, args[0])
	shape := make(map[string]string)
	shapeOf("", docs[len(docs)-1], shape)
	var lines []string
	for path, kind := range shape {
		lines = append(lines, strings.TrimSpace(path+" "+kind))
	}
	slices.Sort(lines)
	got := strings.Join(lines, "\n") + "\n"
	if want := ts.ReadFile(args[1]); got != want {
		ts.Fatalf("the shape of %s is\n%swant\n%s", args[0], got, want)
	}
}

// documents reads one JSON document a line.
func documents(ts *testscript.TestScript, name string) []any {
	var docs []any
	text := strings.TrimSpace(ts.ReadFile(name))
	for line := range strings.Lines(text) {
		d := json.NewDecoder(strings.NewReader(line))
		d.UseNumber()
		var v any
		if err := d.Decode(&v); err != nil {
			ts.Fatalf("%s holds a line that is no JSON: %q: %v", name, line, err)
		}
		if _, err := d.Token(); !errors.Is(err, io.EOF) {
			ts.Fatalf("%s holds more than one document on a line: %q", name, line)
		}
		docs = append(docs, v)
	}
	if len(docs) == 0 {
		ts.Fatalf("%s holds no JSON", name)
	}
	return docs
}

func shapeOf(path string, v any, shape map[string]string) {
	switch v := v.(type) {
	case map[string]any:
		if len(v) == 0 {
			shape[path] = "{}"
		}
		for key, value := range v {
			shapeOf(strings.TrimPrefix(path+"."+key, "."), value, shape)
		}
	case []any:
		if len(v) == 0 {
			shape[path] = "[]"
		}
		for _, value := range v {
			shapeOf(path+"[]", value, shape)
		}
	case nil:
		shape[path] = "null"
	default:
		shape[path] = strings.TrimPrefix(fmt.Sprintf("%T", v), "json.")
	}
}

// jsonvalue FILE PATH REGEXP looks at a value of the last line of FILE; PATH is
// like snapshots.0.id.
func cmdJSONValue(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: jsonvalue FILE PATH REGEXP")
	}
	docs := documents(ts, args[0])
	v := docs[len(docs)-1]
	for key := range strings.SplitSeq(args[1], ".") {
		switch x := v.(type) {
		case map[string]any:
			v = x[key]
		case []any:
			i, err := strconv.Atoi(key)
			if err != nil || i >= len(x) {
				ts.Fatalf("%s: no element %q of %d", args[1], key, len(x))
			}
			v = x[i]
		default:
			ts.Fatalf("%s: %q is below a value", args[1], key)
		}
	}
	text := fmt.Sprint(v)
	if regexp.MustCompile("^(?:"+args[2]+")$").MatchString(text) == neg {
		ts.Fatalf("%s is %q, which %q does not agree with", args[1], text, args[2])
	}
}

// lastline FILE REGEXP looks at the last line of FILE.
func cmdLastLine(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: lastline FILE REGEXP")
	}
	text := strings.TrimSuffix(ts.ReadFile(args[0]), "\n")
	last := text[strings.LastIndex(text, "\n")+1:]
	if !regexp.MustCompile(args[1]).MatchString(last) {
		ts.Fatalf("the last line is %q, want %q", last, args[1])
	}
}

// damage remove|flip|truncate GLOB, or damage set OFFSET BYTE GLOB, damages the
// last file that the pattern matches; of packs, whose names are random, the
// largest, which holds data.
func cmdDamage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: damage remove|flip|truncate GLOB, damage set OFFSET BYTE GLOB")
	}
	matches, err := filepath.Glob(ts.MkAbs(args[len(args)-1]))
	ts.Check(err)
	if len(matches) == 0 {
		ts.Fatalf("nothing matches %s", args[len(args)-1])
	}
	file := matches[len(matches)-1]
	if strings.Contains(args[len(args)-1], "packs/") {
		file = slices.MaxFunc(matches, func(a, b string) int {
			infoA, errA := os.Stat(a)
			infoB, errB := os.Stat(b)
			ts.Check(errors.Join(errA, errB))
			return cmp.Compare(infoA.Size(), infoB.Size())
		})
	}
	if args[0] == "remove" {
		ts.Check(os.Remove(file))
		return
	}
	p, err := os.ReadFile(file)
	ts.Check(err)
	switch args[0] {
	case "flip":
		p[len(p)/2] ^= 1
	case "truncate":
		p = p[:len(p)/2]
	case "set":
		off, err := strconv.Atoi(args[1])
		ts.Check(err)
		b, err := strconv.ParseUint(args[2], 0, 8)
		ts.Check(err)
		p[off] = byte(b)
	}
	ts.Check(os.Chmod(file, 0o600))
	ts.Check(os.WriteFile(file, p, 0o600))
}

// mkname DIR QUOTED makes a file whose name is quoted as in Go.
func cmdMakeName(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mkname DIR QUOTED")
	}
	name, err := strconv.Unquote(`"` + args[1] + `"`)
	ts.Check(err)
	ts.Check(os.WriteFile(filepath.Join(ts.MkAbs(args[0]), name), []byte("content\n"), 0o600))
}

// mksshkey FILE [PASSPHRASE] makes an SSH key in FILE and FILE.pub, and sets the
// variable PUBLIC to its public line.
func cmdMakeSSHKey(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 || len(args) > 2 {
		ts.Fatalf("usage: mksshkey FILE [PASSPHRASE]")
	}
	public, key, err := ed25519.GenerateKey(rand.Reader)
	ts.Check(err)
	var block *pem.Block
	if len(args) == 2 {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte(args[1]))
	} else {
		block, err = ssh.MarshalPrivateKey(key, "")
	}
	ts.Check(err)
	file := ts.MkAbs(args[0])
	ts.Check(os.WriteFile(file, pem.EncodeToMemory(block), 0o600))
	line, err := ssh.NewPublicKey(public)
	ts.Check(err)
	text := ssh.MarshalAuthorizedKey(line)
	ts.Check(os.WriteFile(file+".pub", text, 0o600))
	ts.Setenv("PUBLIC", strings.TrimSpace(string(text)))
}

// mode FILE OCTAL looks at the permissions of a file.
func cmdMode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mode FILE OCTAL")
	}
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if got := fmt.Sprintf("%o", info.Mode().Perm()); got != args[1] {
		ts.Fatalf("the mode of %s is %s, want %s", args[0], got, args[1])
	}
}

// same A B compares two trees by names, kinds, modes, times and content.
func cmdSame(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: same A B")
	}
	a, b := listing(ts, args[0]), listing(ts, args[1])
	if a != b {
		ts.Fatalf("%s is\n%s%s is\n%s", args[0], a, args[1], b)
	}
}

func listing(ts *testscript.TestScript, dir string) string {
	root := ts.MkAbs(dir)
	var out bytes.Buffer
	ts.Check(filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		content := ""
		switch {
		case info.Mode().IsRegular():
			p, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			content = string(p)
		case info.Mode()&fs.ModeSymlink != 0:
			if content, err = os.Readlink(path); err != nil {
				return err
			}
		}
		fmt.Fprintf(&out, "%q %v %v %q\n", rel, info.Mode(), info.ModTime().UnixNano(), content)
		return nil
	}))
	return out.String()
}

// snapshot NAME sets the variable NAME to the id in the last line of stdout of
// a backup.
func cmdSnapshot(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: snapshot NAME")
	}
	m := regexp.MustCompile(`(?m)^snapshot ([0-9a-f]{8}) `).FindStringSubmatch(ts.ReadFile("stdout"))
	if m == nil {
		ts.Fatalf("stdout names no snapshot:\n%s", ts.ReadFile("stdout"))
	}
	ts.Setenv(args[0], m[1])
}
