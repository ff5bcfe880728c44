package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/internal/cloud"
)

// code returns the store's own name for what went wrong, or "".
func code(err error) string {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return api.ErrorCode()
	}
	return ""
}

// status returns the status of the response that is the error, or 0.
func status(err error) int {
	if r, ok := errors.AsType[*awshttp.ResponseError](err); ok {
		return r.HTTPStatusCode()
	}
	return 0
}

func header(err error) http.Header {
	if r, ok := errors.AsType[*awshttp.ResponseError](err); ok && r.Response != nil && r.Response.Response != nil {
		return r.Response.Header
	}
	return http.Header{}
}

// failed gives an error of the SDK its meaning.
func (b *Backend) failed(ctx context.Context, op string, key backend.Key, err error) error {
	e := &backend.OpError{Op: op, Key: key, Err: err}
	put := op == "put"
	if ended := backend.Ended(ctx); ended != nil {
		e.Err = errors.Join(ended, brief(err))
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
	// An answer that broke off in its body has the status of success.
	if s := status(err); s == 0 || s < 300 && code(err) == "" {
		t, sent := cloud.Trouble(ctx, err, b.name)
		e.Err = brief(err)
		if t != nil {
			t.Err = e.Err
			e.Err = t
		}
		if put && sent {
			e.Kind = backend.ErrUnknownOutcome
		}
		return e
	}
	e.Kind, e.Err = b.answer(op, err)
	return e
}

func noCredentials(c *credentialError) error {
	t := &backend.TroubleError{Cause: backend.NoCredentials, Err: c, Advice: "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a profile of ~/.aws with profile=, or run where a role is given"}
	if c.had {
		// They were there a moment ago: where they come from is away.
		t.Cause, t.Advice = backend.Unreachable, "see why credentials cannot be renewed"
	}
	return t
}

// answer gives an answer of the store its meaning.
func (b *Backend) answer(op string, err error) (kind, cause error) {
	said := brief(err)
	trouble := func(cause backend.Cause, format string, args ...any) (error, error) {
		return nil, &backend.TroubleError{Cause: cause, Advice: fmt.Sprintf(format, args...), After: cloud.After(header(err)), Err: said}
	}
	switch c := code(err); c {
	case "NoSuchBucket":
		return trouble(backend.NoStore, "make the bucket %s first, or correct its name, region or endpoint", b.opts.Bucket)
	case "NoSuchKey", "NotFound":
		return backend.ErrNotExist, nil
	case "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "InvalidClientTokenId", "UnrecognizedClientException", "XAdminUserNotFound", "InvalidSecurity":
		return trouble(backend.WrongKey, "correct the access key and its secret; this store does not know them")
	case "ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired":
		return trouble(backend.Expired, "log in again: the session token has expired")
	case "RequestTimeTooSkewed", "RequestExpired":
		return trouble(backend.ClockSkew, "set this machine's clock: the store refuses requests that seem too old or too new")
	case "InvalidObjectState":
		return trouble(backend.Archived, "a lifecycle rule moved the object to cold storage: bring it back there, and except this prefix from the rule")
	case "PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "TemporaryRedirect", "Redirect":
		return trouble(backend.WrongRegion, "%s", b.rightRegion(header(err)))
	case "BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "InvalidChecksum":
		return trouble(backend.Mangled, "what arrived was not what was sent: look for a bad memory module, cable or proxy if it happens again")
	case "QuotaExceeded", "AccountQuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "XMinioAdminBucketQuotaExceeded", "InsufficientCapacity":
		return backend.ErrNoSpace, said
	case "InvalidStorageClass", "NotImplemented", "MethodNotAllowed", "KMS.NotFoundException", "KMS.DisabledException", "InvalidEncryptionAlgorithmError":
		return trouble(backend.Misconfigured, "this store cannot do what was asked for: see the table of stores in docs/backends.md, and the options of the URL")
	case "ConditionalRequestConflict", "OperationAborted", "RequestTimeout":
		return trouble(backend.Throttled, "run it again: somebody else works at the same object")
	case "SlowDown", "ThrottlingException", "Throttling", "RequestLimitExceeded", "TooManyRequests", "SlowDownRead", "SlowDownWrite", "XMinioServerNotInitialized":
		return trouble(backend.Throttled, "the store asks for fewer requests: run it again later, or with fewer machines at a time")
	}
	return b.byStatus(op, err)
}

// byStatus is for answers whose code says nothing, or that have none, as to HEAD.
func (b *Backend) byStatus(op string, err error) (kind, cause error) {
	said := brief(err)
	trouble := func(cause backend.Cause, advice string) (error, error) {
		return nil, &backend.TroubleError{Cause: cause, Advice: advice, After: cloud.After(header(err)), Err: said}
	}
	switch s := status(err); {
	case s == http.StatusPreconditionFailed && op == "put":
		return backend.ErrExist, nil
	case s == http.StatusNotFound:
		return backend.ErrNotExist, nil
	case s == http.StatusMovedPermanently, s == http.StatusTemporaryRedirect:
		return trouble(backend.WrongRegion, b.rightRegion(header(err)))
	case s == http.StatusTooManyRequests:
		return trouble(backend.Throttled, "the store asks for fewer requests: run it again later, or with fewer machines at a time")
	case s == http.StatusInsufficientStorage:
		return backend.ErrNoSpace, said
	case s == http.StatusForbidden && locked(err):
		return trouble(backend.Immutable, "the object is locked: it can be deleted when its retention ends")
	case s == http.StatusForbidden, s == http.StatusUnauthorized:
		return trouble(backend.Denied, denied(op))
	case s == http.StatusNotImplemented:
		return trouble(backend.Misconfigured, "this store cannot do what was asked for: see the table of stores in docs/backends.md")
	case s >= 500 && op == "put":
		// It may have been stored before that was said.
		_, t := trouble(backend.Unreachable, "the store has trouble of its own: run it again later")
		return backend.ErrUnknownOutcome, t
	case s >= 500:
		return trouble(backend.Unreachable, "the store has trouble of its own: run it again later")
	}
	return nil, said
}

// denied names the permission that op takes.
func denied(op string) string {
	need := map[string]string{
		"get": "s3:GetObject (and s3:ListBucket, without which a missing object looks forbidden)", "stat": "s3:GetObject and s3:ListBucket",
		"put": "s3:PutObject", "list": "s3:ListBucket", "delete": "s3:DeleteObject",
	}[op]
	return "allow this user " + need + " on the bucket and prefix: docs/backends.md has the policies; or use the credentials of one who may"
}

// locked reports whether a refusal is about an object lock.
func locked(err error) bool {
	api, ok := errors.AsType[smithy.APIError](err)
	return ok && (api.ErrorCode() == "ObjectLocked" || api.ErrorCode() == "AccessDenied" && strings.Contains(api.ErrorMessage(), "object protected by object lock"))
}

func (b *Backend) rightRegion(h http.Header) string {
	if region := h.Get("X-Amz-Bucket-Region"); region != "" {
		return fmt.Sprintf("the bucket %s is in the region %s: give region=%s", b.opts.Bucket, region, region)
	}
	return fmt.Sprintf("the bucket %s is in another region: give it with region=", b.opts.Bucket)
}

// brief leaves out the SDK's own words around an error; request ids stay, since
// the store's support asks for them.
func brief(err error) error {
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		if u, isURL := errors.AsType[*url.Error](err); isURL {
			return u.Err
		}
		if op, isOp := errors.AsType[*smithy.OperationError](err); isOp {
			return op.Err
		}
		return err
	}
	s := api.ErrorCode()
	if m := api.ErrorMessage(); m != "" {
		s += ": " + m
	}
	if r, ok := errors.AsType[*awshttp.ResponseError](err); ok && r.RequestID != "" {
		s += " (request " + r.RequestID + ")"
	}
	return &answerError{text: s, err: err}
}

// An answerError is an error of the store in its own words alone.
type answerError struct {
	text string
	err  error
}

func (e *answerError) Error() string { return e.text }
func (e *answerError) Unwrap() error { return e.err }
