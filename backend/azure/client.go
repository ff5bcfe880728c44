package azure

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"github.com/cairn-backup/cairn/backend"
)

// connect returns the client, which the first request makes: to look for
// credentials is I/O.
func (b *Backend) connect() (*container.Client, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.client != nil {
		return b.client, nil
	}
	client, err := b.newClient()
	b.client = client
	return client, err
}

func (b *Backend) newClient() (*container.Client, error) {
	o := b.opts
	base := azcore.ClientOptions{
		Transport: b.http,
		// What is tried again, and when, is for backend/retry to say, which counts
		// and knows the context.
		Retry: policy.RetryOptions{MaxRetries: -1},
	}
	opts := &container.ClientOptions{ClientOptions: base}
	if o.APIVersion != "" {
		opts.PerCallPolicies = append(opts.PerCallPolicies, apiVersion(o.APIVersion))
	}
	at := o.Endpoint + "/" + o.Container
	switch {
	case o.ConnectionString != "":
		return unusable(container.NewClientFromConnectionString(o.ConnectionString, o.Container, opts))
	case o.Key != "":
		key, err := container.NewSharedKeyCredential(o.Account, o.Key)
		if err != nil {
			return unusable(nil, err)
		}
		return container.NewClientWithSharedKeyCredential(at, key, opts)
	case o.SAS != "":
		return container.NewClientWithNoCredential(at+"?"+trimQuery(o.SAS), opts)
	}
	chain, err := azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{
		// Without instance discovery, which asks a server of Microsoft's for
		// nothing that is needed here.
		ClientOptions: azcore.ClientOptions{Transport: b.http}, DisableInstanceDiscovery: true,
	})
	if err != nil {
		return nil, &credentialError{err: err}
	}
	return container.NewClient(at, &credentials{inner: chain}, opts)
}

// unusable says of credentials that make no client what they are. The SDK's own
// text might hold a part of them.
func unusable(c *container.Client, err error) (*container.Client, error) {
	if err != nil {
		return nil, &backend.TroubleError{Cause: backend.WrongKey, Advice: "copy the key or the connection string again from the portal", Err: errors.New("the key or connection string is not of the right form")}
	}
	return c, nil
}

func trimQuery(sas string) string {
	if len(sas) > 0 && sas[0] == '?' {
		return sas[1:]
	}
	return sas
}

// apiVersion is a policy that asks for another version than the SDK does.
type apiVersion string

// Do implements policy.Policy.
func (v apiVersion) Do(req *policy.Request) (*http.Response, error) {
	// The SDK sets this spelling, past the canonical one.
	req.Raw().Header["x-ms-version"] = []string{string(v)}
	return req.Next()
}

// credentials are those of the chain, with errors that can be told from others.
type credentials struct {
	inner azcore.TokenCredential
	had   atomic.Bool // once; then a failure is one of the place they come from
}

// A credentialError says that there is no token to send.
type credentialError struct {
	err error
	had bool
}

func (e *credentialError) Error() string { return e.err.Error() }
func (e *credentialError) Unwrap() error { return e.err }

// GetToken implements azcore.TokenCredential.
func (c *credentials) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	token, err := c.inner.GetToken(ctx, o)
	if err != nil {
		return token, &credentialError{err: err, had: c.had.Load()}
	}
	c.had.Store(true)
	return token, nil
}

// do calls f with the client.
func (b *Backend) do(ctx context.Context, f func(*container.Client) error) error {
	if err := backend.Ended(ctx); err != nil {
		return err
	}
	client, err := b.connect()
	if err != nil {
		return err
	}
	return f(client)
}
