package main

import (
	"context"
	"fmt"
	"io/fs"
	"strconv"

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
	repo, _, err := a.open(ctx, reads)
	if err != nil {
		return err
	}
	defer repo.Close() // only read
	s, err := a.snapshot(ctx, repo, ref, toStdout)
	if err != nil {
		return err
	}
	v, err := openView(ctx, repo, s)
	if err != nil {
		return err
	}
	name, info, err := v.stat(arg)
	if err != nil {
		return err
	}
	infos := []fs.FileInfo{info}
	if info.IsDir() {
		if infos, err = v.children(name); err != nil {
			return err
		}
	}
	if a.out.json {
		doc := lsJSON{Schema: schema, Snapshot: s.ID, pathJSON: pathOf(v.relative(arg)), Entries: make([]entryJSON, len(infos))}
		for i, info := range infos {
			doc.Entries[i] = entryOf(nodeOf(info))
		}
		return a.out.document(doc)
	}
	var t table
	for _, info := range infos {
		n := nodeOf(info)
		name := printable(n.Name)
		if n.Kind == manifest.Symlink {
			name += " -> " + printable(n.Target)
		}
		t.row(modeOf(n), owner(n.Owner, n.UID), owner(n.Group, n.GID), length(n), localTime(n.MTime), name)
	}
	return t.print(a.out)
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

func (v *view) children(name string) ([]fs.FileInfo, error) {
	entries, err := v.ReadDir(name)
	if err != nil {
		return nil, err
	}
	infos := make([]fs.FileInfo, len(entries))
	for i, e := range entries {
		if infos[i], err = e.Info(); err != nil {
			return nil, err
		}
	}
	return infos, nil
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
	Entries []entryJSON `json:"entries"`
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
