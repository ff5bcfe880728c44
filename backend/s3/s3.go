// Package s3 is a backend on Amazon S3 and stores that speak its language.
//
// An object is created by one PUT with If-None-Match, beyond 64 MiB by a
// multipart upload with the condition on its completion. Every body carries a
// CRC-32C that the store checks. docs/backends.md tells how a bucket is set up,
// which permissions are needed, and which store cannot do what.
package s3

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

	sdk "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/internal/cloud"
)

// Options say where a store is and how it is reached. Bucket is required.
type Options struct {
	Bucket string
	// Prefix is put in front of every key, with a slash between. Default: none.
	Prefix string
	// Endpoint is the URL of a store that is not Amazon's. Default: Amazon's, by
	// region.
	Endpoint string
	// Region of the bucket. Default: what the credentials' profile says, else
	// us-east-1.
	Region string
	// PathStyle puts the bucket's name into the path of URLs, not in front of the
	// host's: stores with an address of their own mostly want it.
	PathStyle bool

	// AccessKey, SecretKey and, for temporary ones, SessionToken are the
	// credentials. Default: the usual chain of the SDK, which looks at the
	// variables AWS_*, the files in ~/.aws, web identity, containers and
	// instances, in that order, at the first request.
	AccessKey, SecretKey, SessionToken string
	// Profile chooses one of the files' profiles.
	Profile string
	// Anonymous sends requests that are not signed.
	Anonymous bool

	// StorageClass of what is put, for example STANDARD_IA. Default: the
	// bucket's. Classes that must be thawed before a read cannot be used.
	StorageClass string
	// Encryption at rest, beside Cairn's own: AES256, aws:kms or aws:kms:dsse.
	// Default: the bucket's.
	Encryption string
	// KMSKey names the key for aws:kms. Default: the account's.
	KMSKey string

	// Unconditional is for stores that ignore If-None-Match: Put looks first and
	// puts then. Two writers at once could replace each other's objects, so that
	// a repository there is for a single writer.
	Unconditional bool

	// CA holds certificates (PEM) to trust beside the system's.
	CA []byte
	// Proxy says which one a request goes through. Default: none.
	Proxy func(*http.Request) (*url.URL, error)
	// Dial opens connections. Default: a net.Dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Stall is after how long without a byte in either direction a connection
	// counts as broken. Default: 90 seconds.
	Stall time.Duration

	// Multipart is the size in bytes from which an object is uploaded in parts.
	// Default: 64 MiB; at most 5 GiB.
	Multipart int64
}

// partSize bounds the parts of a multipart upload, in bytes, and partsAtOnce
// what is in flight beside the object itself, which the caller holds.
const (
	partSize    = 16 << 20
	partsAtOnce = 4
)

func (o Options) withDefaults() (Options, error) {
	var errs []error
	if o.Bucket == "" || strings.ContainsAny(o.Bucket, "/ ?#") {
		errs = append(errs, fmt.Errorf("bucket %q is no name of a bucket", o.Bucket))
	}
	o.Prefix = strings.TrimSuffix(o.Prefix, "/")
	if err := cloud.CheckPrefix(o.Prefix); err != nil {
		errs = append(errs, err)
	}
	if o.Endpoint != "" {
		if !strings.Contains(o.Endpoint, "://") {
			o.Endpoint = "https://" + o.Endpoint
		}
		u, err := url.Parse(o.Endpoint)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil {
			errs = append(errs, fmt.Errorf("endpoint %q is not of the form https://host:port", o.Endpoint))
		}
	}
	if (o.AccessKey == "") != (o.SecretKey == "") {
		errs = append(errs, errors.New("an access key needs its secret key, and the other way round"))
	}
	if o.Multipart <= 0 {
		o.Multipart = 64 << 20
	}
	o.Multipart = min(o.Multipart, 5<<30)
	return o, errors.Join(errs...)
}

// A Backend is a bucket, or a part of one. It is safe for concurrent use.
type Backend struct {
	opts   Options
	http   *http.Client
	prefix string // "", or ends in a slash
	name   string // of the endpoint, for people

	mu     sync.Mutex // guards what follows
	client *sdk.Client
	creds  *credentials
	swept  bool // of stale uploads
}

var (
	_ backend.Backend      = (*Backend)(nil)
	_ backend.BatchDeleter = (*Backend)(nil)
	_ backend.Inspector    = (*Backend)(nil)
)

// New returns a backend. It does no I/O; that the bucket is there, and that the
// credentials are, shows at the first request.
func New(opts Options) (*Backend, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("s3: %w", err)
	}
	client, err := cloud.NewClient(cloud.Options{CA: opts.CA, Proxy: opts.Proxy, Dial: opts.Dial, Stall: opts.Stall})
	if err != nil {
		return nil, fmt.Errorf("s3: %w", err)
	}
	b := &Backend{opts: opts, http: client, name: opts.Endpoint}
	if opts.Prefix != "" {
		b.prefix = opts.Prefix + "/"
	}
	if b.name == "" {
		b.name = "Amazon S3"
	}
	return b, nil
}

// object returns the name of key in the bucket.
func (b *Backend) object(key backend.Key) *string {
	s := b.prefix + string(key)
	return &s
}

// Stat implements backend.Backend.
func (b *Backend) Stat(ctx context.Context, key backend.Key) (backend.Info, error) {
	if err := key.Validate(); err != nil {
		return backend.Info{}, &backend.OpError{Op: "stat", Key: key, Err: err}
	}
	var out *sdk.HeadObjectOutput
	err := b.do(ctx, func(c *sdk.Client) (err error) {
		out, err = c.HeadObject(ctx, &sdk.HeadObjectInput{Bucket: &b.opts.Bucket, Key: b.object(key)})
		return err
	})
	if err != nil {
		return backend.Info{}, b.failed(ctx, "stat", key, err)
	}
	info := backend.Info{Key: key, Size: value(out.ContentLength)}
	if out.LastModified != nil {
		info.Modified = *out.LastModified
	}
	return info, nil
}

// Get implements backend.Backend.
func (b *Backend) Get(ctx context.Context, key backend.Key, off, n int64) (io.ReadCloser, error) {
	if err := key.Validate(); err != nil {
		return nil, &backend.OpError{Op: "get", Key: key, Err: err}
	}
	if off < 0 || n == 0 {
		return b.empty(ctx, key, off, n)
	}
	in := &sdk.GetObjectInput{Bucket: &b.opts.Bucket, Key: b.object(key)}
	if off > 0 || n > 0 {
		in.Range = cloud.Range(off, n)
	} else {
		in.ChecksumMode = "ENABLED" // of a part there is none
	}
	var out *sdk.GetObjectOutput
	err := b.do(ctx, func(c *sdk.Client) (err error) {
		out, err = c.GetObject(ctx, in)
		return err
	})
	if status(err) == http.StatusRequestedRangeNotSatisfiable {
		return b.empty(ctx, key, off, n)
	}
	if err != nil {
		return nil, b.failed(ctx, "get", key, err)
	}
	if in.Range != nil && out.ContentRange == nil {
		_ = out.Body.Close() // it is of no use
		return nil, &backend.OpError{Op: "get", Key: key, Err: &backend.TroubleError{
			Cause: backend.Misconfigured, Advice: "this store cannot hold a repository", Err: errors.New("the store ignores ranges"),
		}}
	}
	return backend.NewBody(ctx, &reader{b: b, r: out.Body, ended: func(err error) error { return b.failed(ctx, "get", key, err) }}, value(out.ContentLength), out.Body), nil
}

// empty is the answer for ranges of which S3 makes no difference: nothing, at
// the end or asked for, or an error.
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
	b     *Backend
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
	return "s3:" + b.opts.Endpoint + "/" + b.opts.Bucket + "/" + b.prefix
}

// Concurrency implements backend.Concurrenter.
func (b *Backend) Concurrency() int { return cloud.Requests }

// Close closes connections that are not in use. A later call opens others.
func (b *Backend) Close() error {
	b.http.CloseIdleConnections()
	return nil
}
