package main

import (
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/limit"
	"github.com/cairn-backup/cairn/backend/local"
)

// The variables that this program reads; no package below it reads any.
const (
	envRepo              = "CAIRN_REPO"
	envCacheDir          = "CAIRN_CACHE_DIR"
	envKeyFile           = "CAIRN_KEY_FILE"
	envPassphraseFile    = "CAIRN_PASSPHRASE_FILE"
	envPassphraseCommand = "CAIRN_PASSPHRASE_COMMAND"
	envPassphrase        = "CAIRN_PASSPHRASE"
)

// A location is where a repository is.
type location struct {
	text   string          // as the user gave it
	dir    string          // of a repository on this machine's file systems
	cloud  backend.Backend // else
	single bool            // the user says that the store is for a single writer
	limits limit.Options   // of what goes to dir; those of cloud are in it
	chosen bool            // by the user, and not the default
}

// store returns the backend at l. It does no I/O.
func (l location) store() backend.Backend {
	if l.cloud != nil {
		return l.cloud
	}
	if l.limits != (limit.Options{}) {
		if b, err := limit.New(local.New(l.dir), l.limits); err == nil { // limits() lets none through that fail
			return b
		}
	}
	return local.New(l.dir)
}

// where returns the directory or the URL.
func (l location) where() string {
	if l.remote() {
		return l.text
	}
	return l.dir
}

// remote reports whether the repository is not on this machine's file systems.
func (l location) remote() bool { return l.dir == "" }

// locate returns the place that --repo, CAIRN_REPO or the default names.
func (a *app) locate() (location, error) {
	text := a.flags.repo
	if text == "" {
		text = a.env[envRepo]
	}
	if text == "" {
		dir, err := a.userDir("XDG_DATA_HOME", ".local", "share")
		if err != nil {
			return location{}, withHint(usagef("no repository is given, and there is no home directory for the default one"),
				"give one with --repo or %s", envRepo)
		}
		dir = filepath.Join(dir, "repository")
		return location{text: dir, dir: dir}, nil
	}
	return a.locateText(text)
}

// locateText returns the place that text names.
func (a *app) locateText(text string) (location, error) {
	if scheme, _, isURL := strings.Cut(text, "://"); isURL && schemes[scheme] != nil {
		return a.cloudLocation(text)
	}
	if scheme, rest, found := strings.Cut(text, ":"); found && schemes[scheme] != nil {
		return location{}, withHint(usagef("repository %s is neither a path nor a URL", printable(text)),
			"a bucket is written %s://%s; a directory of that name ./%s", scheme, strings.TrimLeft(printableText(rest), "/"), printableText(text))
	}
	dir, err := localPath(text)
	if err != nil {
		return location{}, err
	}
	limits, err := a.limits()
	return location{text: text, dir: dir, limits: limits, chosen: true}, err
}

// localPath returns the path that a repository's path or URL means.
func localPath(text string) (string, error) {
	scheme, _, isURL := strings.Cut(text, "://")
	if !isURL {
		abs, err := filepath.Abs(text)
		if err != nil {
			return "", usagef("repository %s: %v", printable(text), err)
		}
		return abs, nil
	}
	known := "a repository is a path or a URL: file:///path, s3://bucket/prefix or azblob://container/prefix"
	if scheme != "file" {
		return "", withHint(usagef("repository scheme %q is not known", printableText(scheme)+"://"), "%s", known)
	}
	u, err := url.Parse(text)
	if err != nil || (u.Host != "" && u.Host != "localhost") || u.Path == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return "", withHint(usagef("repository URL %s is not of the form file:///path", printable(text)), "%s", known)
	}
	path := u.Path
	if runtime.GOOS == "windows" {
		path = strings.TrimPrefix(path, "/") // file:///C:/backup
	}
	return filepath.FromSlash(path), nil
}

// userDir returns this program's directory below the one that variable names,
// or else below the parts in the user's home directory.
func (a *app) userDir(variable string, parts ...string) (string, error) {
	// The XDG specification has relative paths ignored.
	if dir := a.env[variable]; filepath.IsAbs(dir) {
		return filepath.Join(dir, "cairn"), nil
	}
	if runtime.GOOS == "windows" {
		if dir := a.env["LOCALAPPDATA"]; dir != "" {
			return filepath.Join(dir, "cairn", strings.TrimPrefix(parts[len(parts)-1], ".")), nil
		}
	}
	home := a.env["HOME"]
	if runtime.GOOS == "windows" {
		home = a.env["USERPROFILE"]
	}
	if home == "" {
		return "", usagef("there is no home directory")
	}
	return filepath.Join(append(append([]string{home}, parts...), "cairn")...), nil
}

// cacheDir returns where caches are kept, or "" for in memory.
func (a *app) cacheDir() string {
	for _, dir := range []string{a.flags.cacheDir, a.env[envCacheDir]} {
		if dir != "" {
			return dir
		}
	}
	dir, err := a.userDir("XDG_CACHE_HOME", ".cache")
	if err != nil {
		return "" // a cache is a hint: without one it takes longer
	}
	return dir
}

// defaultKeyFile returns where the key of the default repository is kept.
func (a *app) defaultKeyFile() (string, error) {
	dir, err := a.userDir("XDG_CONFIG_HOME", ".config")
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "key"), nil
}

// secretFiles returns the files by which the repository at l is opened.
func (a *app) secretFiles(l location) ([]string, error) {
	s, err := a.secretSource()
	if err == nil && s.given() == 0 && !l.chosen {
		s.keyFile, err = a.defaultKeyFile()
	}
	return slices.DeleteFunc([]string{s.keyFile, s.passphraseFile}, func(file string) bool { return file == "" }), err
}

// ownDirs returns the directories that no backup of this program takes in: the
// repository and what the program keeps for itself, as far as they exist.
func (a *app) ownDirs(l location) []string {
	candidates := []string{l.dir, a.cacheDir()}
	if dir, err := a.userDir("XDG_STATE_HOME", ".local", "state"); err == nil {
		candidates = append(candidates, dir)
	}
	var dirs []string
	for _, dir := range candidates {
		// What cannot be looked at is not in use: the cache is in memory then.
		if _, err := os.Stat(dir); dir != "" && err == nil {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}
