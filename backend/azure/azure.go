// Package azure is a backend on Azure Blob Storage.
//
// An object is created by one Put Blob with If-None-Match, beyond 64 MiB by
// blocks and a block list with the condition. Every body carries a CRC-64 that
// the store checks. docs/backends.md tells how a container is set up and which
// permissions are needed.
package azure

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/internal/cloud"
)

// Options say where a store is and how it is reached. Container is required, and
// so is one of Account, Endpoint and ConnectionString.
type Options struct {
	Container string
	// Prefix is put in front of every key, with a slash between. Default: none.
	Prefix string
	// Account is the name of the storage account.
	Account string
	// Endpoint is the URL of the account's blob service. Default:
	// https://ACCOUNT.blob.core.windows.net.
	Endpoint string

	// Key is the account's shared key, in base64.
	Key string
	// SAS is the query of a shared access signature.
	SAS string
	// ConnectionString is as the portal shows it, with a key or a SAS.
	ConnectionString string
	// Without any of these the usual chain of the SDK is used, at the first
	// request: the variables AZURE_*, workload identity, managed identity, and
	// who is logged in with az.

	// Tier of what is put: Hot, Cool or Cold. Default: the account's. Archive
	// cannot be used.
	Tier string
	// APIVersion replaces the version of the API that the SDK asks for, for
	// servers that do not know it yet.
	APIVersion string

	// CA holds certificates (PEM) to trust beside the system's.
	CA []byte
	// Proxy says which one a request goes through. Default: none.
	Proxy func(*http.Request) (*url.URL, error)
	// Dial opens connections. Default: a net.Dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Stall is after how long without a byte in either direction a connection
	// counts as broken. Default: 90 seconds.
	Stall time.Duration

	// Blocks is the size in bytes from which an object is uploaded in blocks.
	// Default: 64 MiB; at most 5,000 MiB.
	Blocks int64
}

func (o Options) withDefaults() (Options, error) {
	var errs []error
	if o.Container == "" || strings.ContainsAny(o.Container, "/ ?#") {
		errs = append(errs, fmt.Errorf("container %q is no name of a container", o.Container))
	}
	o.Prefix = strings.TrimSuffix(o.Prefix, "/")
	if err := cloud.CheckPrefix(o.Prefix); err != nil {
		errs = append(errs, err)
	}
	if o.Endpoint == "" && o.Account != "" {
		o.Endpoint = "https://" + o.Account + ".blob.core.windows.net"
	}
	switch {
	case o.Endpoint == "" && o.ConnectionString == "":
		errs = append(errs, errors.New("give the storage account, or the endpoint"))
	case o.Endpoint != "":
		if !strings.Contains(o.Endpoint, "://") {
			o.Endpoint = "https://" + o.Endpoint
		}
		o.Endpoint = strings.TrimSuffix(o.Endpoint, "/")
		u, err := url.Parse(o.Endpoint)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" {
			errs = append(errs, fmt.Errorf("endpoint %q is not of the form https://host", o.Endpoint))
		} else if u.Scheme == "http" && o.Key == "" && o.SAS == "" {
			errs = append(errs, errors.New("without a key and a SAS tokens are sent, and those only over https://"))
		}
	}
	if o.Key != "" && o.Account == "" {
		errs = append(errs, errors.New("a shared key needs the name of its account"))
	}
	if o.Tier != "" && o.Tier != "Hot" && o.Tier != "Cool" && o.Tier != "Cold" {
		errs = append(errs, fmt.Errorf("tier %q is none of Hot, Cool, Cold", o.Tier))
	}
	if o.Blocks <= 0 {
		o.Blocks = 64 << 20
	}
	o.Blocks = min(o.Blocks, 5000<<20)
	return o, errors.Join(errs...)
}

// A Backend is a container, or a part of one. It is safe for concurrent use.
type Backend struct {
	opts   Options
	http   *http.Client
	prefix string // "", or ends in a slash
	name   string // of the endpoint, for people

	mu     sync.Mutex // guards client
	client *container.Client
}

var (
	_ backend.Backend      = (*Backend)(nil)
	_ backend.BatchDeleter = (*Backend)(nil)
)

// New returns a backend. It does no I/O; that the container is there, and that
// the credentials are, shows at the first request.
func New(opts Options) (*Backend, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("azure: %w", err)
	}
	client, err := cloud.NewClient(cloud.Options{CA: opts.CA, Proxy: opts.Proxy, Dial: opts.Dial, Stall: opts.Stall})
	if err != nil {
		return nil, fmt.Errorf("azure: %w", err)
	}
	b := &Backend{opts: opts, http: client, name: opts.Endpoint}
	if opts.Prefix != "" {
		b.prefix = opts.Prefix + "/"
	}
	if b.name == "" {
		b.name = "the account"
	}
	return b, nil
}

// blob returns the name of key in the container.
func (b *Backend) blob(key backend.Key) string { return b.prefix + string(key) }

// Stat implements backend.Backend.
func (b *Backend) Stat(ctx context.Context, key backend.Key) (backend.Info, error) {
	if err := key.Validate(); err != nil {
		return backend.Info{}, &backend.OpError{Op: "stat", Key: key, Err: err}
	}
	var got blob.GetPropertiesResponse
	err := b.do(ctx, func(c *container.Client) (err error) {
		got, err = c.NewBlobClient(b.blob(key)).GetProperties(ctx, nil)
		return err
	})
	if err != nil {
		return backend.Info{}, b.failed(ctx, "stat", key, err)
	}
	return backend.Info{Key: key, Size: value(got.ContentLength), Modified: value(got.LastModified)}, nil
}

// Get implements backend.Backend.
func (b *Backend) Get(ctx context.Context, key backend.Key, off, n int64) (io.ReadCloser, error) {
	if err := key.Validate(); err != nil {
		return nil, &backend.OpError{Op: "get", Key: key, Err: err}
	}
	if off < 0 || n == 0 {
		return b.empty(ctx, key, off, n)
	}
	span := blob.HTTPRange{Offset: off, Count: max(n, 0)} // 0: to the end
	if n > 0 && off > 1<<62-n {
		span.Count = 0
	}
	var got blob.DownloadStreamResponse
	err := b.do(ctx, func(c *container.Client) (err error) {
		got, err = c.NewBlobClient(b.blob(key)).DownloadStream(ctx, &blob.DownloadStreamOptions{Range: span})
		return err
	})
	if status(err) == http.StatusRequestedRangeNotSatisfiable {
		return b.empty(ctx, key, off, n)
	}
	if err != nil {
		return nil, b.failed(ctx, "get", key, err)
	}
	return backend.NewBody(ctx, &reader{r: got.Body, ended: func(err error) error { return b.failed(ctx, "get", key, err) }}, value(got.ContentLength), got.Body), nil
}

// empty is the answer for ranges of which the store makes no difference:
// nothing, at the end or asked for, or an error.
func (b *Backend) empty(ctx context.Context, key backend.Key, off, n int64) (io.ReadCloser, error) {
	info, err := b.Stat(ctx, key)
	if err != nil {
		return nil, err
	}
	size, err := backend.Span(off, n, info.Size)
	if err != nil {
		return nil, &backend.OpError{Op: "get", Key: key, Err: err}
	}
	if size > 0 {
		// The store said the range does not exist, and now it does.
		return nil, &backend.OpError{Op: "get", Key: key, Kind: backend.ErrUnavailable, Err: errors.New("the object changed meanwhile")}
	}
	return backend.NewBody(ctx, strings.NewReader(""), 0, nil), nil
}

// A reader gives errors of a body their meaning.
type reader struct {
	r     io.Reader
	ended func(error) error
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // the end is this value, and nothing that wraps it
		err = r.ended(err)
	}
	return n, err
}

func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// Name implements backend.Namer.
func (b *Backend) Name() string {
	account := b.opts.Endpoint
	if account == "" {
		return "" // it is in the connection string, beside the key
	}
	return "azblob:" + account + "/" + b.opts.Container + "/" + b.prefix
}

// Concurrency implements backend.Concurrenter.
func (b *Backend) Concurrency() int { return cloud.Requests }

// Close closes connections that are not in use. A later call opens others.
func (b *Backend) Close() error {
	b.http.CloseIdleConnections()
	return nil
}
