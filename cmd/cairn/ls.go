package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cairn-backup/cairn/manifest"
)

func (a *app) lsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "ls SNAPSHOT [PATH]",
		Short: "List a directory of a snapshot",
		Long: `List a directory of a snapshot.

In a snapshot of one directory PATH is relative to it; in others it begins with
the name of a root, as ls without PATH shows them. The absolute path that was
backed up is understood as well.`,
		Example: `  cairn ls latest
  cairn ls 4f2c91ab photos/2026`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := atLeast("a SNAPSHOT")(cmd, args); err != nil {
				return err
			}
			return atMost(2)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			arg := ""
			if len(args) > 1 {
				arg = args[1]
			}
			return a.ls(cmd.Context(), args[0], arg)
		},
	}
}

func (a *app) ls(ctx context.Context, ref, arg string) error {
	return a.item(ctx, ref, arg, toStdout, func(v *view, name string, info fs.FileInfo) error {
		entries := v.children(name)
		if !info.IsDir() {
			entries = func(yield func(fs.FileInfo, error) bool) { yield(info, nil) }
		}
		if a.out.json {
			return a.lsJSON(lsJSON{Schema: schema, Snapshot: v.snap.ID, pathJSON: pathOf(v.relative(arg)), Entries: []entryJSON{}}, entries)
		}
		var t table
		for info, err := range entries {
			if err != nil {
				return err
			}
			n := nodeOf(info)
			name := printable(n.Name)
			if n.Kind == manifest.Symlink {
				name += " -> " + printable(n.Target)
			}
			t.row(modeOf(n), owner(n.Owner, n.UID), owner(n.Group, n.GID), length(n), localTime(n.MTime), name)
			if len(t.rows) == listed {
				if err := t.print(a.out); err != nil {
					return err
				}
			}
		}
		return t.print(a.out)
	})
}

// lsJSON writes doc with the entries, of which there may be more than fit into
// memory.
func (a *app) lsJSON(doc lsJSON, entries iter.Seq2[fs.FileInfo, error]) error {
	const end = "]}"
	text, err := marshal(doc)
	if err != nil || !strings.HasSuffix(string(text), end) {
		return errors.Join(err, errors.New("ls: the entries are not the last of the document"))
	}
	text = text[:len(text)-len(end)]
	comma := false
	for info, err := range entries {
		if err != nil {
			return err
		}
		if comma {
			text = append(text, ',')
		}
		comma = true
		entry, err := marshal(entryOf(nodeOf(info)))
		if err != nil {
			return err
		}
		if text = append(text, entry...); len(text) < 64<<10 {
			continue
		}
		if _, err := a.out.Write(text); err != nil {
			return err
		}
		text = text[:0]
	}
	_, err = a.out.Write(append(append(text, end...), '\n'))
	return err
}

// modeOf is the kind and mode of an item as ls -l shows them.
func modeOf(n *manifest.Node) string {
	kinds := map[manifest.NodeKind]byte{
		manifest.Dir: 'd', manifest.Symlink: 'l', manifest.FIFO: 'p', manifest.CharDevice: 'c', manifest.BlockDevice: 'b', manifest.Socket: 's',
	}
	mode := []byte("-rwxrwxrwx")
	if kind, ok := kinds[n.Kind]; ok {
		mode[0] = kind
	}
	for i := range 9 {
		if n.Mode&(0o400>>i) == 0 {
			mode[1+i] = '-'
		}
	}
	for _, special := range []struct {
		bit      uint32
		at       int
		with, no byte // with and without the right to execute
	}{{0o4000, 3, 's', 'S'}, {0o2000, 6, 's', 'S'}, {0o1000, 9, 't', 'T'}} {
		switch {
		case n.Mode&special.bit == 0:
		case mode[special.at] == 'x':
			mode[special.at] = special.with
		default:
			mode[special.at] = special.no
		}
	}
	return string(mode)
}

// listed is how many entries of a directory are in memory at a time.
const listed = 1000

// children yields the entries of a directory, by name.
func (v *view) children(name string) iter.Seq2[fs.FileInfo, error] {
	return func(yield func(fs.FileInfo, error) bool) {
		f, err := v.Open(name)
		if err != nil {
			yield(nil, err)
			return
		}
		defer f.Close() // only read
		dir, ok := f.(fs.ReadDirFile)
		if !ok {
			yield(nil, &fs.PathError{Op: "readdir", Path: name, Err: errors.ErrUnsupported})
			return
		}
		for {
			entries, err := dir.ReadDir(listed)
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(nil, err)
				return
			}
			for _, e := range entries {
				info, err := e.Info()
				if !yield(info, err) || err != nil {
					return
				}
			}
		}
	}
}

func owner(name string, id uint32) string {
	if name != "" {
		return printable(name)
	}
	return strconv.FormatUint(uint64(id), 10)
}

// length is a file's size, or a device's numbers.
func length(n *manifest.Node) string {
	if n.Kind == manifest.CharDevice || n.Kind == manifest.BlockDevice {
		return fmt.Sprintf("%d,%d", n.Device>>32, n.Device&0xffffffff)
	}
	return strconv.FormatUint(n.Size, 10)
}

type lsJSON struct {
	Schema   int         `json:"schema"`
	Snapshot manifest.ID `json:"snapshot"`
	pathJSON
	Entries []entryJSON `json:"entries"` // the last
}

type entryJSON struct {
	Name      string        `json:"name"`
	NameB64   string        `json:"name_b64,omitempty"`
	Kind      string        `json:"kind"`
	Mode      string        `json:"mode"` // octal
	UID       uint32        `json:"uid"`
	GID       uint32        `json:"gid"`
	Owner     string        `json:"owner,omitempty"`
	Group     string        `json:"group,omitempty"`
	Time      manifest.Time `json:"time"`
	Size      uint64        `json:"size"`
	Target    string        `json:"target,omitempty"`
	TargetB64 string        `json:"target_b64,omitempty"`
	Changed   bool          `json:"changed,omitempty"` // while it was read
}

func entryOf(n *manifest.Node) entryJSON {
	return entryJSON{
		Name: n.Name, NameB64: b64(n.Name), Kind: n.Kind.String(), Mode: fmt.Sprintf("%04o", n.Mode),
		UID: n.UID, GID: n.GID, Owner: n.Owner, Group: n.Group, Time: n.MTime, Size: n.Size,
		Target: n.Target, TargetB64: b64(n.Target), Changed: n.Flags&manifest.Changed != 0,
	}
}
