package s3

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	static "github.com/aws/aws-sdk-go-v2/credentials"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/logging"

	"github.com/cairn-backup/cairn/backend"
)

const defaultRegion = "us-east-1"

// connect returns the client, which the first request makes: to look for
// credentials is I/O.
func (b *Backend) connect(ctx context.Context) (*sdk.Client, *credentials, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.client != nil {
		return b.client, b.creds, nil
	}
	cfg, err := b.config(ctx)
	if err != nil {
		return nil, nil, err
	}
	if cfg.Region == "" {
		cfg.Region = defaultRegion
	}
	creds := &credentials{inner: cfg.Credentials}
	cfg.Credentials = creds
	if b.opts.Anonymous {
		cfg.Credentials = aws.AnonymousCredentials{}
	}
	// What is tried again, and when, is for backend/retry to say, which counts
	// and knows the context.
	cfg.Retryer = func() aws.Retryer { return aws.NopRetryer{} }
	cfg.Logger = logging.Nop{}
	cfg.HTTPClient = b.http
	// Of what is put the sums are in the request; of what is read we ask where
	// there is one.
	cfg.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenSupported
	cfg.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
	b.creds = creds
	b.client = sdk.NewFromConfig(cfg, func(o *sdk.Options) {
		o.UsePathStyle = b.opts.PathStyle
		o.DisableLogOutputChecksumValidationSkipped = true
		if b.opts.Endpoint != "" {
			o.BaseEndpoint = &b.opts.Endpoint
		}
	})
	return b.client, b.creds, nil
}

// config returns where credentials come from. Explicit ones keep the SDK from
// looking at the environment at all.
func (b *Backend) config(ctx context.Context) (aws.Config, error) {
	o := b.opts
	if o.Anonymous {
		return aws.Config{Region: o.Region}, nil
	}
	if o.AccessKey != "" {
		keys := static.NewStaticCredentialsProvider(o.AccessKey, o.SecretKey, o.SessionToken)
		return aws.Config{Region: o.Region, Credentials: keys}, nil
	}
	from := []func(*config.LoadOptions) error{config.WithHTTPClient(b.buildable()), config.WithLogger(logging.Nop{})}
	if o.Region != "" {
		from = append(from, config.WithRegion(o.Region))
	}
	if o.Profile != "" {
		from = append(from, config.WithSharedConfigProfile(o.Profile))
	}
	cfg, err := config.LoadDefaultConfig(ctx, from...)
	if err != nil {
		return cfg, &credentialError{err: err}
	}
	return cfg, nil
}

// buildable returns a client like the backend's for those who give credentials.
// The SDK adds the certificates of AWS_CA_BUNDLE to it, which it can to no other.
func (b *Backend) buildable() *awshttp.BuildableClient {
	return awshttp.NewBuildableClient().WithTransportOptions(func(tr *http.Transport) {
		if own, ok := b.http.Transport.(*http.Transport); ok {
			tr.Proxy, tr.DialContext, tr.TLSClientConfig = own.Proxy, own.DialContext, own.TLSClientConfig.Clone()
		}
	})
}

// credentials are those of the chain, with errors that can be told from others.
type credentials struct {
	inner aws.CredentialsProvider
	had   atomic.Bool // once; then a failure is one of the place they come from
}

// A credentialError says that there are no credentials to sign with.
type credentialError struct {
	err error
	had bool
}

func (e *credentialError) Error() string { return e.err.Error() }
func (e *credentialError) Unwrap() error { return e.err }

// Retrieve implements aws.CredentialsProvider.
func (c *credentials) Retrieve(ctx context.Context) (aws.Credentials, error) {
	if c.inner == nil {
		return aws.Credentials{}, &credentialError{err: errors.New("no place to look for credentials")}
	}
	found, err := c.inner.Retrieve(ctx)
	if err != nil {
		return found, &credentialError{err: err, had: c.had.Load()}
	}
	c.had.Store(true)
	return found, nil
}

// renew forgets credentials that the store does not take any more. It reports
// whether there may be others.
func (c *credentials) renew() bool {
	cache, ok := c.inner.(*aws.CredentialsCache)
	if ok {
		cache.Invalidate()
	}
	return ok
}

// do calls f, and once more if the store says that the credentials have expired
// and new ones can be had, or that the clock is wrong, which the SDK has
// corrected by then.
func (b *Backend) do(ctx context.Context, f func(*sdk.Client) error) error {
	if err := backend.Ended(ctx); err != nil {
		return err
	}
	client, creds, err := b.connect(ctx)
	if err != nil {
		return err
	}
	err = f(client)
	switch code(err) {
	case "ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired":
		if creds.renew() {
			return f(client)
		}
	case "RequestTimeTooSkewed":
		return f(client)
	}
	return err
}

// staleUpload is the age from which a multipart upload is given up: nobody works
// at one object for a week.
const staleUpload = 7 * 24 * time.Hour
