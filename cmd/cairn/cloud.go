package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/azure"
	"github.com/cairn-backup/cairn/backend/limit"
	"github.com/cairn-backup/cairn/backend/s3"
)

// schemes are the URLs of object stores, with what may follow the question mark.
// docs/backends.md explains each. Secrets are never in a URL: it is shown in
// process lists and written to logs.
var schemes = map[string][]string{ //nolint:gochecknoglobals // a literal table
	"s3":     {"endpoint", "region", "path-style", "profile", "anonymous", "storage-class", "sse", "kms-key", "put-if-absent", "ca"},
	"azblob": {"account", "endpoint", "tier", "api-version", "ca"},
}

// A storeURL is a taken apart URL of an object store.
type storeURL struct {
	scheme, bucket, prefix string
	query                  url.Values
}

// parseStore takes an URL of an object store apart.
func parseStore(text string) (storeURL, error) {
	u, err := url.Parse(text)
	if err != nil {
		return storeURL{}, usagef("repository URL %s cannot be read", printable(text)) // the error has the URL in it
	}
	if u.User != nil {
		return storeURL{}, withHint(usagef("a repository URL holds no user and no password"), "give credentials by the environment: see docs/backends.md")
	}
	if u.Host == "" || u.Fragment != "" || u.Port() != "" {
		return storeURL{}, usagef("repository URL %s is not of the form %s://NAME/PREFIX?OPTION=VALUE", printable(text), u.Scheme)
	}
	s := storeURL{scheme: u.Scheme, bucket: u.Host, prefix: strings.Trim(u.Path, "/")}
	if s.query, err = url.ParseQuery(u.RawQuery); err != nil {
		return storeURL{}, usagef("the options of repository URL %s cannot be read", printable(text))
	}
	for name, values := range s.query {
		if !slices.Contains(schemes[u.Scheme], name) {
			return storeURL{}, withHint(usagef("%s:// has no option %q", u.Scheme, printableText(name)), "its options are %s", strings.Join(schemes[u.Scheme], ", "))
		}
		if len(values) > 1 {
			return storeURL{}, usagef("the option %q is given twice", name)
		}
	}
	return s, nil
}

// yes reads an option that is yes or no.
func (s storeURL) yes(name string, otherwise bool) (bool, error) {
	switch s.query.Get(name) {
	case "":
		return otherwise, nil
	case "yes":
		return true, nil
	case "no":
		return false, nil
	}
	return false, usagef("the option %q is yes or no, not %q", name, printableText(s.query.Get(name)))
}

// cloudLocation returns the repository in an object store that text names.
func (a *app) cloudLocation(text string) (location, error) {
	l := location{text: text, chosen: true}
	s, err := parseStore(text)
	if err != nil {
		return l, err
	}
	limits, err := a.limits()
	if err != nil {
		return l, err
	}
	dial, err := limit.Conns((&net.Dialer{Timeout: 15 * time.Second, KeepAlive: 15 * time.Second}).DialContext, limits)
	if err != nil {
		return l, usagef("%v", err)
	}
	var ca []byte
	name := s.query.Get("ca")
	if name == "" && s.scheme == "s3" {
		name = a.env["AWS_CA_BUNDLE"]
	}
	if name != "" {
		if ca, err = os.ReadFile(name); err != nil {
			return l, fmt.Errorf("repository: ca: %w", err)
		}
	}
	way := way{ca: ca, dial: dial}
	if s.scheme == "s3" {
		l.cloud, l.single, err = a.s3Store(s, way)
	} else {
		l.cloud, err = a.azureStore(s, way)
	}
	if err != nil {
		if _, is := errors.AsType[*usageError](err); !is {
			err = usagef("repository %s: %v", printable(text), err)
		}
	}
	return l, err
}

// A way is how a store is reached.
type way struct {
	ca   []byte
	dial limit.Dial
}

func (a *app) s3Store(s storeURL, w way) (b backend.Backend, single bool, err error) {
	q := s.query
	pathStyle, err1 := s.yes("path-style", q.Get("endpoint") != "")
	anonymous, err2 := s.yes("anonymous", false)
	absent, err3 := s.yes("put-if-absent", true)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, false, err
	}
	o := s3.Options{
		Bucket: s.bucket, Prefix: s.prefix, Endpoint: q.Get("endpoint"), Region: q.Get("region"), PathStyle: pathStyle,
		Profile: q.Get("profile"), Anonymous: anonymous, StorageClass: q.Get("storage-class"), Encryption: q.Get("sse"), KMSKey: q.Get("kms-key"),
		Unconditional: !absent, CA: w.ca, Dial: w.dial, Proxy: http.ProxyFromEnvironment,
	}
	for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION"} {
		if o.Region == "" {
			o.Region = a.env[name]
		}
	}
	// The first place where the SDK would look, too; without the others it needs
	// no time to look there.
	if o.Profile == "" && a.env["AWS_SECRET_ACCESS_KEY"] != "" {
		o.AccessKey, o.SecretKey, o.SessionToken = a.env["AWS_ACCESS_KEY_ID"], a.env["AWS_SECRET_ACCESS_KEY"], a.env["AWS_SESSION_TOKEN"]
	}
	store, err := s3.New(o)
	return store, !absent, err
}

func (a *app) azureStore(s storeURL, w way) (backend.Backend, error) {
	q := s.query
	o := azure.Options{
		Container: s.bucket, Prefix: s.prefix, Account: q.Get("account"), Endpoint: q.Get("endpoint"), Tier: q.Get("tier"), APIVersion: q.Get("api-version"),
		Key: a.env["AZURE_STORAGE_KEY"], SAS: a.env["AZURE_STORAGE_SAS_TOKEN"],
		CA: w.ca, Dial: w.dial, Proxy: http.ProxyFromEnvironment,
	}
	if o.Account == "" {
		o.Account = a.env["AZURE_STORAGE_ACCOUNT"]
	}
	if o.Account == "" && o.Endpoint == "" {
		o.ConnectionString = a.env["AZURE_STORAGE_CONNECTION_STRING"]
	}
	return azure.New(o)
}

// limits returns what --limit-upload and --limit-download say.
func (a *app) limits() (limit.Options, error) {
	var o limit.Options
	for _, f := range []struct {
		flag, text string
		to         *int64
	}{{"--limit-upload", a.flags.limitUpload, &o.Upload}, {"--limit-download", a.flags.limitDownload, &o.Download}} {
		if f.text == "" {
			continue
		}
		n, err := parseSize(strings.TrimSuffix(f.text, "/s"))
		if err != nil || n == 0 {
			return o, usagef("%s is a number of bytes a second such as 500K or 10M, not %q", f.flag, printableText(f.text))
		}
		*f.to = n
	}
	return o, nil
}

// prove finds out, before a repository is made in an object store, whether that
// can hold one, and tells of what in its settings would harm it.
func (a *app) prove(ctx context.Context, l location) error {
	if !l.remote() {
		return nil
	}
	b := l.store()
	if err := backend.Validate(ctx, b); err != nil {
		if errors.Is(err, backend.ErrUnsupported) && !l.single {
			return withHint(fmt.Errorf("this store cannot hold a repository for several writers: %w", err),
				"if it only lacks creation of an object if it is absent, put-if-absent=no in the URL makes a repository for a single writer")
		}
		return err
	}
	found, err := backend.Inspect(ctx, b)
	if err != nil {
		return err
	}
	for _, t := range found {
		a.out.complain("cairn: %s: %s", oneLine(t.Err), printableText(t.Advice))
	}
	return nil
}
