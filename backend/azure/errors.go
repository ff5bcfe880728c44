package azure

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/internal/cloud"
)

// status returns the status of the response that is the error, or 0.
func status(err error) int {
	if r, ok := errors.AsType[*azcore.ResponseError](err); ok {
		return r.StatusCode
	}
	return 0
}

func header(r *azcore.ResponseError) http.Header {
	if r.RawResponse != nil {
		return r.RawResponse.Header
	}
	return http.Header{}
}

// failed gives an error of the SDK its meaning.
func (b *Backend) failed(ctx context.Context, op string, key backend.Key, err error) error {
	e := &backend.OpError{Op: op, Key: key, Err: err}
	put := op == "put"
	if ended := backend.Ended(ctx); ended != nil {
		e.Err = ended
		if put { // it may have been sent
			e.Kind = backend.ErrUnknownOutcome
		}
		return e
	}
	if _, ok := errors.AsType[*backend.TroubleError](err); ok {
		return e
	}
	if c, ok := errors.AsType[*credentialError](err); ok {
		e.Err = noCredentials(c)
		return e
	}
	if r, ok := errors.AsType[*azcore.ResponseError](err); ok {
		e.Kind, e.Err = b.answer(op, r)
		return e
	}
	t, sent := cloud.Trouble(ctx, err, b.name)
	e.Err = b.withoutQuery(err)
	if t != nil {
		t.Err = e.Err
		e.Err = t
	}
	if put && sent {
		e.Kind = backend.ErrUnknownOutcome
	}
	return e
}

// withoutQuery keeps a shared access signature, which is in the URL of an error
// of net/http, from being told.
func (b *Backend) withoutQuery(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

func noCredentials(c *credentialError) error {
	t := &backend.TroubleError{Cause: backend.NoCredentials, Err: c, Advice: "set AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_CONNECTION_STRING, log in with az login, or run where an identity is assigned"}
	if c.had {
		// They were there a moment ago: where they come from is away.
		t.Cause, t.Advice = backend.Unreachable, "see why a token cannot be had any more"
	}
	return t
}

// answer gives an answer of the store its meaning.
func (b *Backend) answer(op string, r *azcore.ResponseError) (kind, cause error) {
	said := brief(r)
	trouble := func(cause backend.Cause, format string, args ...any) (error, error) {
		return nil, &backend.TroubleError{Cause: cause, Advice: fmt.Sprintf(format, args...), After: cloud.After(header(r)), Err: said}
	}
	switch r.ErrorCode {
	case "BlobAlreadyExists", "UnauthorizedBlobOverwrite": // the second: to who may only create
		return backend.ErrExist, nil
	case "ContainerNotFound", "ContainerBeingDeleted", "ContainerDisabled", "ResourceNotFound":
		return trouble(backend.NoStore, "make the container %s first, or correct its name or the account's", b.opts.Container)
	case "BlobNotFound":
		return backend.ErrNotExist, nil
	case "AuthenticationFailed", "InvalidAuthenticationInfo", "NoAuthenticationInformation":
		return b.refused(r)
	case "BlobArchived", "BlobBeingRehydrated":
		return trouble(backend.Archived, "a lifecycle rule moved the object to the archive tier: bring it back there, and except this prefix from the rule")
	case "BlobImmutableDueToPolicy":
		return trouble(backend.Immutable, "a retention policy or a legal hold keeps the object: it can be deleted when that ends")
	case "KeyBasedAuthenticationNotPermitted":
		return trouble(backend.Denied, "the account takes no shared keys: log in with az login, or use a managed identity")
	case "AccountIsDisabled":
		return trouble(backend.Denied, "the storage account is disabled: see its subscription in the portal")
	case "Md5Mismatch", "Crc64Mismatch":
		return trouble(backend.Mangled, "what arrived was not what was sent: look for a bad memory module, cable or proxy if it happens again")
	case "InvalidBlockList", "InvalidBlobOrBlock":
		return trouble(backend.Throttled, "run it again: somebody else worked at the same object")
	case "ServerBusy":
		return trouble(backend.Throttled, "the store asks for fewer requests: run it again later, or with fewer machines at a time")
	case "InvalidHeaderValue":
		return trouble(backend.Misconfigured, "if the server does not know this version of the API, give one that it knows with api-version=")
	case "InvalidBlobTier", "FeatureNotSupported", "APINotImplemented", "BlobTierInadequateForContentLength", "AccessTierNotSupportedForBlobType":
		return trouble(backend.Misconfigured, "this account cannot do what was asked for: see docs/backends.md, and the options of the URL")
	case "InsufficientStorage", "AccountQuotaExceeded":
		return backend.ErrNoSpace, said
	}
	return b.byStatus(op, r)
}

// byStatus is for answers whose code says nothing, or that have none.
func (b *Backend) byStatus(op string, r *azcore.ResponseError) (kind, cause error) {
	said := brief(r)
	trouble := func(cause backend.Cause, advice string) (error, error) {
		return nil, &backend.TroubleError{Cause: cause, Advice: advice, After: cloud.After(header(r)), Err: said}
	}
	switch s := r.StatusCode; {
	case s == http.StatusNotFound:
		return backend.ErrNotExist, nil
	case s == http.StatusTooManyRequests:
		return trouble(backend.Throttled, "the store asks for fewer requests: run it again later, or with fewer machines at a time")
	case s == http.StatusInsufficientStorage:
		return backend.ErrNoSpace, said
	case s == http.StatusUnauthorized:
		return b.refused(r)
	case s == http.StatusForbidden:
		return trouble(backend.Denied, denied(op))
	case s >= 500 && op == "put":
		// It may have been stored before that was said.
		_, t := trouble(backend.Unreachable, "the store has trouble of its own: run it again later")
		return backend.ErrUnknownOutcome, t
	case s >= 500:
		return trouble(backend.Unreachable, "the store has trouble of its own: run it again later")
	}
	return nil, said
}

// tolerated is the difference of clocks that Azure allows.
const tolerated = 15 * time.Minute

// refused tells apart why the store does not know who asks: it gives one code
// for all of it.
func (b *Backend) refused(r *azcore.ResponseError) (kind, cause error) {
	t := &backend.TroubleError{Cause: backend.WrongKey, Advice: "correct the account's name and its key, or use another signature or identity; this store does not know these", Err: brief(r)}
	now, err := http.ParseTime(header(r).Get("Date"))
	switch {
	case err != nil:
	case time.Since(now).Abs() > tolerated:
		t.Cause, t.Advice = backend.ClockSkew, "set this machine's clock: it differs by "+time.Since(now).Abs().Round(time.Minute).String()+" from the store's"
	case b.sasEnded(now):
		t.Cause, t.Advice = backend.Expired, "make a new shared access signature: this one has expired"
	}
	return nil, t
}

// sasEnded reports whether the signature that was given says itself that it has
// expired.
func (b *Backend) sasEnded(now time.Time) bool {
	sas := b.opts.SAS
	if _, after, ok := strings.Cut(b.opts.ConnectionString, "SharedAccessSignature="); ok {
		sas, _, _ = strings.Cut(after, ";")
	}
	q, err := url.ParseQuery(trimQuery(sas))
	if err != nil {
		return false
	}
	end, err := time.Parse(time.RFC3339, q.Get("se"))
	return err == nil && !now.Before(end)
}

// denied names the permission that op takes.
func denied(op string) string {
	need := map[string]string{
		"get": "read (r)", "stat": "read (r)", "put": "create (c)", "list": "list (l)", "delete": "delete (d)",
	}[op]
	return "allow this user " + need + " on the container (the role Storage Blob Data Contributor has all), and this machine's address in the account's firewall: see docs/backends.md"
}

// brief leaves out what the SDK prints around an error: the whole response.
// Request ids stay, since support asks for them.
func brief(r *azcore.ResponseError) error {
	s := r.ErrorCode
	if s == "" {
		s = http.StatusText(r.StatusCode)
	}
	s = fmt.Sprintf("%d %s", r.StatusCode, s)
	if id := header(r).Get("X-Ms-Request-Id"); id != "" {
		s += " (request " + id + ")"
	}
	return &answerError{text: s, err: r}
}

// An answerError is an error of the store in short.
type answerError struct {
	text string
	err  error
}

func (e *answerError) Error() string { return e.text }
func (e *answerError) Unwrap() error { return e.err }
