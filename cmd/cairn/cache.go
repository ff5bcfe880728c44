package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func (a *app) cacheCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "cache",
		Short:   "List and remove local caches",
		Example: "  cairn cache list\n  cairn cache clean",
		Args:    cobra.ArbitraryArgs,
		RunE:    group,
	}
	cmd.AddCommand(
		&cobra.Command{
			Use: "list", Short: "List the caches, one a repository", Example: "  cairn cache list",
			Args: atMost(0),
			RunE: func(cmd *cobra.Command, _ []string) error { return a.cacheList(cmd.Context()) },
		},
		a.cacheCleanCommand(),
	)
	return cmd
}

func (a *app) cacheCleanCommand() *cobra.Command {
	var older string
	cmd := &cobra.Command{
		Use:   "clean",
		Short: "Remove the caches: they are built anew when needed",
		Long: `Remove the caches: they are built anew when needed. With --older only those of
repositories that were not used for so long.

A cache holds an index of what is stored, the place in the log, and, of a
repository that is not on this machine, up to 512 MiB of its directory trees.`,
		Example: "  cairn cache clean\n  cairn cache clean --older 30d",
		Args:    atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var least time.Duration
			if cmd.Flags().Changed("older") {
				var err error
				if least, err = parseAge("--older", older); err != nil {
					return err
				}
			}
			return a.cacheClean(cmd.Context(), least)
		},
	}
	cmd.Flags().StringVar(&older, "older", "", "only caches that were not used for this `time`, such as 12h, 30d or 1w2d")
	return cmd
}

// A cache is the cache of one repository.
type cache struct {
	Repository string    `json:"repository"`
	Bytes      int64     `json:"bytes"`
	Used       time.Time `json:"used"` // last change of a file in it
	dir        string
}

type cachesJSON struct {
	Schema  int     `json:"schema"`
	Dir     string  `json:"dir"`
	DirB64  string  `json:"dir_b64,omitempty"`
	Caches  []cache `json:"caches"`
	Removed bool    `json:"removed"`
}

// caches returns the caches in the cache directory: those of its entries that
// are named as a repository is. Others are not this program's to remove.
func (a *app) caches(ctx context.Context) (cachesJSON, error) {
	doc := cachesJSON{Schema: schema, Dir: a.cacheDir(), DirB64: b64(a.cacheDir()), Caches: []cache{}}
	if doc.Dir == "" {
		return doc, withHint(usagef("there is no cache directory"), "give one with --cache-dir or %s", envCacheDir)
	}
	entries, err := os.ReadDir(doc.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return doc, fmt.Errorf("cache: %w", err)
	}
	for _, e := range entries {
		name := e.Name()
		if !e.IsDir() || len(name) != 32 || strings.Trim(name, "0123456789abcdef") != "" {
			continue
		}
		c := cache{Repository: name, dir: filepath.Join(doc.Dir, name)}
		if err := c.measure(ctx); err != nil {
			return doc, err
		}
		doc.Caches = append(doc.Caches, c)
	}
	return doc, nil
}

// measure adds up the files of the cache. One that vanishes meanwhile counts
// as gone: another process may use the cache.
func (c *cache) measure(ctx context.Context) error {
	return filepath.WalkDir(c.dir, func(_ string, e fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cache: %w", err)
		}
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() {
			return nil //nolint:nilerr // it vanished, or has no content
		}
		c.Bytes += allocated(info)
		if info.ModTime().After(c.Used) {
			c.Used = info.ModTime().UTC()
		}
		return nil
	})
}

func (a *app) cacheList(ctx context.Context) error {
	doc, err := a.caches(ctx)
	if err != nil {
		return err
	}
	if a.out.json {
		return a.out.document(doc)
	}
	a.out.say("caches in %s", printable(doc.Dir))
	for _, c := range doc.Caches {
		a.out.result("%s  %s  used %s", c.Repository, size(c.Bytes), c.Used.Local().Format("2006-01-02 15:04"))
	}
	return nil
}

// cacheClean removes the caches that were not used for least.
func (a *app) cacheClean(ctx context.Context, least time.Duration) error {
	doc, err := a.caches(ctx)
	if err != nil {
		return err
	}
	now := time.Now()
	doc.Caches = slices.DeleteFunc(doc.Caches, func(c cache) bool { return now.Sub(c.Used) < least })
	var freed int64
	for _, c := range doc.Caches {
		if err := os.RemoveAll(c.dir); err != nil {
			return fmt.Errorf("cache: %w", err)
		}
		freed += c.Bytes
	}
	doc.Removed = true
	if a.out.json {
		return a.out.document(doc)
	}
	a.out.say("removed %s, %s", plural(len(doc.Caches), "cache", "caches"), size(freed))
	return nil
}
