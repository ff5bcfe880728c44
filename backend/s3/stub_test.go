package s3_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/retry"
	"github.com/cairn-backup/cairn/backend/s3"
)

// stub answers every request by f.
func stub(t *testing.T, f http.HandlerFunc) s3.Options {
	t.Helper()
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	return s3.Options{Bucket: "bucket", Prefix: "a/b", Endpoint: s.URL, PathStyle: true, AccessKey: "key", SecretKey: "secret"}
}

// refuse answers as S3 does.
func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>it is so</Message></Error>", code)
}

// TestAnswers: each answer of a store is told apart, says what to do next where
// a person can do something, and is tried again or not.
func TestAnswers(t *testing.T) {
	for _, tt := range []struct {
		status int
		code   string
		kind   error
		cause  backend.Cause
		again  bool
	}{
		{412, "PreconditionFailed", backend.ErrExist, "", false},
		{409, "ConditionalRequestConflict", backend.ErrUnavailable, backend.Throttled, true},
		{503, "SlowDown", backend.ErrUnavailable, backend.Throttled, true},
		{429, "TooManyRequests", backend.ErrUnavailable, backend.Throttled, true},
		{429, "", backend.ErrUnavailable, backend.Throttled, true},
		{500, "InternalError", backend.ErrUnknownOutcome, backend.Unreachable, true},
		{503, "ServiceUnavailable", backend.ErrUnknownOutcome, backend.Unreachable, true},
		{502, "", backend.ErrUnknownOutcome, backend.Unreachable, true},
		{403, "InvalidAccessKeyId", backend.ErrUnauthorized, backend.WrongKey, false},
		{403, "SignatureDoesNotMatch", backend.ErrUnauthorized, backend.WrongKey, false},
		{400, "ExpiredToken", backend.ErrUnauthorized, backend.Expired, false},
		{403, "RequestTimeTooSkewed", backend.ErrUnauthorized, backend.ClockSkew, false},
		{403, "AccessDenied", backend.ErrUnauthorized, backend.Denied, false},
		{403, "", backend.ErrUnauthorized, backend.Denied, false},
		{404, "NoSuchBucket", backend.ErrNotExist, backend.NoStore, false},
		{301, "PermanentRedirect", backend.ErrUnavailable, backend.WrongRegion, false},
		{400, "AuthorizationHeaderMalformed", backend.ErrUnavailable, backend.WrongRegion, false},
		{400, "BadDigest", backend.ErrUnavailable, backend.Mangled, true},
		{403, "InvalidObjectState", backend.ErrUnavailable, backend.Archived, false},
		{507, "InsufficientStorage", backend.ErrNoSpace, "", false},
		{507, "", backend.ErrNoSpace, "", false},
		{403, "QuotaExceeded", backend.ErrNoSpace, "", false},
		{501, "NotImplemented", backend.ErrUnsupported, backend.Misconfigured, false},
		{400, "InvalidStorageClass", backend.ErrUnsupported, backend.Misconfigured, false},
	} {
		t.Run(fmt.Sprint(tt.status, tt.code), func(t *testing.T) {
			o := stub(t, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				w.Header().Set("X-Amz-Bucket-Region", "eu-north-1")
				refuse(w, tt.status, tt.code)
			})
			err := open(t, o).Put(t.Context(), "key", []byte("data"))
			if !errors.Is(err, tt.kind) {
				t.Errorf("Put = %v, want %v", err, tt.kind)
			}
			trouble, _ := errors.AsType[*backend.TroubleError](err)
			if tt.cause == "" != (trouble == nil) || trouble != nil && trouble.Cause != tt.cause {
				t.Errorf("Put = %v, of cause %v; want %q", err, trouble, tt.cause)
			}
			if trouble != nil && (trouble.Advice == "" || strings.HasSuffix(trouble.Advice, ".")) {
				t.Errorf("advice %q", trouble.Advice)
			}
			if tt.cause == backend.WrongRegion && !strings.Contains(trouble.Advice, "region=eu-north-1") {
				t.Errorf("advice %q does not name the region", trouble.Advice)
			}
			if retry.Transient(err) != tt.again {
				t.Errorf("Put = %v, tried again: %t", err, !tt.again)
			}
			if !errors.Is(tt.kind, backend.ErrUnknownOutcome) && errors.Is(err, backend.ErrUnknownOutcome) {
				t.Errorf("Put = %v, and the outcome is known", err)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the error tells the secret: %v", err)
			}
		})
	}
}

// memory is a store that knows what PUT with a condition and GET are.
type memory struct {
	objects map[string][]byte
	before  func(n int64, w http.ResponseWriter, r *http.Request) bool // true: answered
	after   func(n int64, w http.ResponseWriter, r *http.Request) bool // true: the answer is swallowed
	n       atomic.Int64
}

func (m *memory) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := m.n.Add(1)
	body, _ := io.ReadAll(r.Body)
	if m.before != nil && m.before(n, w, r) {
		return
	}
	status := http.StatusOK
	switch data, there := m.objects[r.URL.Path]; {
	case r.Method == http.MethodPut && there && r.Header.Get("If-None-Match") == "*":
		status = http.StatusPreconditionFailed
	case r.Method == http.MethodPut:
		m.objects[r.URL.Path] = body
	case !there:
		status = http.StatusNotFound
	default:
		body = data
	}
	if m.after != nil && m.after(n, w, r) {
		c, _, _ := w.(http.Hijacker).Hijack()
		_ = c.Close()
		return
	}
	if status >= 400 {
		refuse(w, status, map[int]string{404: "NoSuchKey", 412: "PreconditionFailed"}[status])
		return
	}
	if r.Method == http.MethodGet {
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		_, _ = w.Write(body)
	}
}

var quick = retry.Policy{First: time.Millisecond, Longest: time.Millisecond}

// TestLostReply: the reply is swallowed after the object was stored. The bare
// backend does not know; with retries it finds its own object, or another's.
func TestLostReply(t *testing.T) {
	m := &memory{objects: map[string][]byte{}, after: func(n int64, _ http.ResponseWriter, _ *http.Request) bool { return n == 1 }}
	o := stub(t, m.ServeHTTP)
	if err := open(t, o).Put(t.Context(), "log/1", []byte("mine")); !errors.Is(err, backend.ErrUnknownOutcome) {
		t.Errorf("Put without retries = %v, want ErrUnknownOutcome", err)
	}
	m.n.Store(0)
	r := retry.New(open(t, o), quick)
	if err := r.Put(t.Context(), "log/2", []byte("mine")); err != nil {
		t.Errorf("Put = %v, want nil: the object there is ours", err)
	}
	m.n.Store(0)
	m.before = func(n int64, _ http.ResponseWriter, r *http.Request) bool {
		if n == 1 && r.Method == http.MethodPut { // another one is faster, and our answer is lost
			m.objects[r.URL.Path] = []byte("them")
		}
		return false
	}
	if err := r.Put(t.Context(), "log/3", []byte("mine")); !errors.Is(err, backend.ErrExist) {
		t.Errorf("Put = %v, want ErrExist: the object there is another's", err)
	}
}

// TestStorm: 503, 429, 409 and 500 in turn, and the object is there in the end,
// once.
func TestStorm(t *testing.T) {
	storm := []struct {
		status int
		code   string
	}{{503, "SlowDown"}, {429, "TooManyRequests"}, {409, "ConditionalRequestConflict"}, {500, "InternalError"}, {409, "OperationAborted"}}
	m := &memory{objects: map[string][]byte{}, before: func(n int64, w http.ResponseWriter, _ *http.Request) bool {
		if int(n) <= len(storm) {
			refuse(w, storm[n-1].status, storm[n-1].code)
		}
		return int(n) <= len(storm)
	}}
	r := retry.New(open(t, stub(t, m.ServeHTTP)), quick)
	if err := r.Put(t.Context(), "key", []byte("data")); err != nil {
		t.Fatal(err)
	}
	if got, err := backend.ReadAll(t.Context(), r, "key", 10); err != nil || string(got) != "data" {
		t.Errorf("ReadAll = %q, %v", got, err)
	}
	if r.Retries() != int64(len(storm)) {
		t.Errorf("%d retries, want %d", r.Retries(), len(storm))
	}
}

// TestRetryAfter: the store's own wish is in the error.
func TestRetryAfter(t *testing.T) {
	for header, want := range map[string]time.Duration{"7": 7 * time.Second, "Sun, 06 Nov 1994 08:49:40 GMT": 3 * time.Second, "soon": 0} {
		o := stub(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Date", "Sun, 06 Nov 1994 08:49:37 GMT")
			w.Header().Set("Retry-After", header)
			refuse(w, 503, "SlowDown")
		})
		err := open(t, o).Delete(t.Context(), "key")
		trouble, ok := errors.AsType[*backend.TroubleError](err)
		if !ok || trouble.After != want {
			t.Errorf("Retry-After %q: %v, after %v, want %v", header, err, trouble, want)
		}
	}
}

// TestNetwork: no server, no name, no trust, no TLS.
func TestNetwork(t *testing.T) {
	closed := httptest.NewServer(nil)
	closed.Close()
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { refuse(w, 404, "NoSuchKey") }))
	defer secure.Close()
	secure.Config.ErrorLog = nil
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	for name, tt := range map[string]struct {
		endpoint string
		dial     func(context.Context, string, string) (net.Conn, error)
		kind     error
		cause    backend.Cause
	}{
		"refused": {closed.URL, nil, backend.ErrUnavailable, backend.Unreachable},
		"no name": {"http://store.invalid", func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Err: &net.DNSError{IsNotFound: true}}
		}, backend.ErrUnavailable, backend.NoHost},
		"untrusted": {secure.URL, nil, backend.ErrUnauthorized, backend.Untrusted},
		"no TLS":    {strings.Replace(plain.URL, "http://", "https://", 1), nil, backend.ErrUnsupported, backend.Misconfigured},
	} {
		t.Run(name, func(t *testing.T) {
			o := s3.Options{Bucket: "bucket", Endpoint: tt.endpoint, PathStyle: true, AccessKey: "key", SecretKey: "secret", Dial: tt.dial}
			err := open(t, o).Put(t.Context(), "key", nil)
			trouble, ok := errors.AsType[*backend.TroubleError](err)
			if !errors.Is(err, tt.kind) || !ok || trouble.Cause != tt.cause {
				t.Errorf("Put = %v, want %v, %q", err, tt.kind, tt.cause)
			}
			if errors.Is(err, backend.ErrUnknownOutcome) {
				t.Errorf("Put = %v, and nothing was sent", err)
			}
		})
	}
	o := s3.Options{Bucket: "bucket", Endpoint: secure.URL, PathStyle: true, AccessKey: "key", SecretKey: "secret"}
	o.CA = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})
	if _, err := open(t, o).Stat(t.Context(), "key"); !errors.Is(err, backend.ErrNotExist) {
		t.Errorf("Stat with the server's CA = %v, want ErrNotExist", err)
	}
	if _, err := s3.New(s3.Options{Bucket: "bucket", CA: []byte("no PEM")}); err == nil {
		t.Error("New takes a CA without a certificate")
	}
	var _ *tls.Config
}

// TestBlackHole: a server that takes a request and never answers is given up.
func TestBlackHole(t *testing.T) {
	release := make(chan struct{})
	o := stub(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-release
	})
	defer close(release)
	o.Stall = 100 * time.Millisecond
	start := time.Now()
	err := open(t, o).Put(t.Context(), "key", bytes.Repeat([]byte("x"), 1<<20))
	if !errors.Is(err, backend.ErrUnknownOutcome) || !errors.Is(err, backend.ErrUnavailable) {
		t.Errorf("Put = %v, want ErrUnknownOutcome", err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("given up after %v", took)
	}
}

// TestExpiry: credentials that come from an endpoint for containers and expire
// half-way are fetched again, and nothing is noticed.
func TestExpiry(t *testing.T) {
	var issued atomic.Int64
	tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "let me in" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]string{
			"AccessKeyId": "ASIA", "SecretAccessKey": "x", "Token": fmt.Sprint("token-", issued.Add(1)),
			"Expiration": time.Now().Add(time.Hour).UTC().Format(time.RFC3339),
		})
	}))
	defer tokens.Close()
	noFiles(t)
	t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", tokens.URL)
	t.Setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "let me in")
	m := &memory{objects: map[string][]byte{}, before: func(n int64, w http.ResponseWriter, r *http.Request) bool {
		old := n > 3 && r.Header.Get("X-Amz-Security-Token") == "token-1"
		if old {
			refuse(w, 400, "ExpiredToken")
		}
		return old
	}}
	o := stub(t, m.ServeHTTP)
	o.AccessKey, o.SecretKey = "", ""
	b := open(t, o)
	for i := range 6 {
		if err := b.Put(t.Context(), backend.Key(fmt.Sprint("k", i)), []byte("data")); err != nil {
			t.Fatalf("Put %d = %v", i, err)
		}
	}
	if issued.Load() != 2 {
		t.Errorf("%d tokens were issued, want 2", issued.Load())
	}
}

// TestWebIdentity: a token in a file is changed for credentials.
func TestWebIdentity(t *testing.T) {
	sts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		if r.Form.Get("Action") != "AssumeRoleWithWebIdentity" || r.Form.Get("WebIdentityToken") != "jwt" {
			refuse(w, 400, "InvalidIdentityToken")
			return
		}
		fmt.Fprintf(w, `<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ASIA</AccessKeyId><SecretAccessKey>x</SecretAccessKey><SessionToken>from-sts</SessionToken><Expiration>%s</Expiration></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	}))
	defer sts.Close()
	noFiles(t)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("jwt"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", token)
	t.Setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/backup")
	t.Setenv("AWS_ENDPOINT_URL_STS", sts.URL)
	m := &memory{objects: map[string][]byte{}, before: func(_ int64, w http.ResponseWriter, r *http.Request) bool {
		wrong := r.Header.Get("X-Amz-Security-Token") != "from-sts"
		if wrong {
			refuse(w, 403, "InvalidAccessKeyId")
		}
		return wrong
	}}
	o := stub(t, m.ServeHTTP)
	o.AccessKey, o.SecretKey = "", ""
	if err := open(t, o).Put(t.Context(), "key", nil); err != nil {
		t.Error(err)
	}
}

// TestProfile: a profile of the credentials file, and one that is not there.
func TestProfile(t *testing.T) {
	file := noFiles(t)
	if err := os.WriteFile(file, []byte("[backup]\naws_access_key_id = FROMFILE\naws_secret_access_key = x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := stub(t, func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.Header.Get("Authorization"), "Credential=FROMFILE/") {
			refuse(w, 403, "InvalidAccessKeyId")
		}
	})
	o.AccessKey, o.SecretKey, o.Profile = "", "", "backup"
	if err := open(t, o).Put(t.Context(), "key", nil); err != nil {
		t.Error(err)
	}
	// The variable that many companies set.
	bundle := filepath.Join(t.TempDir(), "ca.pem")
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	if err := os.WriteFile(bundle, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_CA_BUNDLE", bundle)
	if err := open(t, o).Put(t.Context(), "key", nil); err != nil {
		t.Error(err)
	}
	o.Profile = "missing"
	wantNone(t, o)
}

// TestNoCredentials: nothing was configured.
func TestNoCredentials(t *testing.T) {
	noFiles(t)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	o := stub(t, func(http.ResponseWriter, *http.Request) { t.Error("a request without credentials was sent") })
	o.AccessKey, o.SecretKey = "", ""
	wantNone(t, o)
}

func wantNone(t *testing.T, o s3.Options) {
	t.Helper()
	err := open(t, o).Put(t.Context(), "key", nil)
	trouble, ok := errors.AsType[*backend.TroubleError](err)
	if !ok || trouble.Cause != backend.NoCredentials || !errors.Is(err, backend.ErrUnauthorized) || errors.Is(err, backend.ErrUnknownOutcome) {
		t.Errorf("Put = %v, want no credentials", err)
	}
}

// noFiles hides this machine's own configuration, and returns where the test
// may have a credentials file.
func noFiles(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, "")
		}
	}
	t.Setenv("HOME", dir)
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(dir, "config"))
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(dir, "credentials"))
	return filepath.Join(dir, "credentials")
}

// TestHeaders: what options ask for is in the request, and so are the sums.
func TestHeaders(t *testing.T) {
	var got http.Header
	o := stub(t, func(_ http.ResponseWriter, r *http.Request) { got = r.Header })
	o.StorageClass, o.Encryption, o.KMSKey = "STANDARD_IA", "aws:kms", "alias/backup"
	if err := open(t, o).Put(t.Context(), "key", []byte("123456789")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"If-None-Match": "*", "X-Amz-Checksum-Crc32c": "4waSgw==", "X-Amz-Storage-Class": "STANDARD_IA",
		"X-Amz-Server-Side-Encryption": "aws:kms", "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id": "alias/backup",
	} {
		if got.Get(name) != want {
			t.Errorf("header %s = %q, want %q", name, got.Get(name), want)
		}
	}
}

// TestInspect: rules over our prefix are told, others are not.
func TestInspect(t *testing.T) {
	rule := func(id, prefix, what string) string {
		return fmt.Sprintf("<Rule><ID>%s</ID><Filter><Prefix>%s</Prefix></Filter><Status>Enabled</Status>%s</Rule>", id, prefix, what)
	}
	days := "<Expiration><Days>30</Days></Expiration>"
	cold := "<Transition><Days>1</Days><StorageClass>DEEP_ARCHIVE</StorageClass></Transition>"
	cool := "<Transition><Days>1</Days><StorageClass>STANDARD_IA</StorageClass></Transition>"
	for name, tt := range map[string]struct {
		rules, versions string
		want            []string
	}{
		"nothing":       {want: nil},
		"over all":      {rules: rule("all", "", days), want: []string{"deletes"}},
		"over a part":   {rules: rule("part", "a/b/packs/", days), want: []string{"deletes"}},
		"elsewhere":     {rules: rule("logs", "logs/", days)},
		"cold":          {rules: rule("cold", "a/", cold), want: []string{"cold storage"}},
		"cool":          {rules: rule("cool", "a/", cool)},
		"versions":      {versions: "<Status>Enabled</Status>", want: []string{"old versions"}},
		"versions, end": {rules: rule("v", "", "<NoncurrentVersionExpiration><NoncurrentDays>7</NoncurrentDays></NoncurrentVersionExpiration>"), versions: "<Status>Enabled</Status>"},
	} {
		t.Run(name, func(t *testing.T) {
			o := stub(t, func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.URL.Query().Has("lifecycle") && tt.rules == "":
					refuse(w, 404, "NoSuchLifecycleConfiguration")
				case r.URL.Query().Has("lifecycle"):
					fmt.Fprintf(w, "<LifecycleConfiguration>%s</LifecycleConfiguration>", tt.rules)
				default:
					fmt.Fprintf(w, "<VersioningConfiguration>%s</VersioningConfiguration>", tt.versions)
				}
			})
			found, err := backend.Inspect(t.Context(), open(t, o))
			if err != nil || len(found) != len(tt.want) {
				t.Fatalf("Inspect = %v, %v; want %v", found, err, tt.want)
			}
			for i, want := range tt.want {
				if !strings.Contains(found[i].Error(), want) || found[i].Advice == "" {
					t.Errorf("Inspect = %v, want %q", found[i], want)
				}
			}
		})
	}
	o := stub(t, func(w http.ResponseWriter, _ *http.Request) { refuse(w, 403, "AccessDenied") })
	if found, err := open(t, o).Inspect(t.Context()); err != nil || len(found) > 0 {
		t.Errorf("Inspect without permission = %v, %v; want nothing", found, err)
	}
}

// TestUnconditional: what a store that knows no condition is good for.
func TestUnconditional(t *testing.T) {
	o := stub(t, (&memory{objects: map[string][]byte{}, before: func(_ int64, w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("If-None-Match") != "" {
			refuse(w, 501, "NotImplemented")
		}
		return r.Header.Get("If-None-Match") != ""
	}}).ServeHTTP)
	if err := open(t, o).Put(t.Context(), "key", nil); !errors.Is(err, backend.ErrUnsupported) {
		t.Errorf("Put = %v, want ErrUnsupported", err)
	}
	o.Unconditional = true
	b := open(t, o)
	if err := b.Put(t.Context(), "key", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := b.Put(t.Context(), "key", []byte("y")); !errors.Is(err, backend.ErrExist) {
		t.Errorf("Put again = %v, want ErrExist", err)
	}
}

func TestOptions(t *testing.T) {
	for name, o := range map[string]s3.Options{
		"no bucket": {}, "bucket with a path": {Bucket: "a/b"}, "prefix with dots": {Bucket: "b", Prefix: "a/../b"},
		"prefix with a space": {Bucket: "b", Prefix: "a b"}, "endpoint with a user": {Bucket: "b", Endpoint: "https://u:p@host"},
		"no secret": {Bucket: "b", AccessKey: "k"}, "ftp": {Bucket: "b", Endpoint: "ftp://host"},
	} {
		if _, err := s3.New(o); err == nil {
			t.Errorf("%s: New takes %+v", name, o)
		}
	}
}
