package azure_test

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/azure"
	"github.com/cairn-backup/cairn/backend/backendtest/servertest"
	"github.com/cairn-backup/cairn/backend/retry"
)

// stub answers every request by f.
func stub(t *testing.T, f http.HandlerFunc) azure.Options {
	t.Helper()
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	return azure.Options{Container: "box", Prefix: "a/b", Endpoint: s.URL + "/acc", Account: "acc", Key: servertest.AccountKey}
}

func refuse(w http.ResponseWriter, status int, code string) {
	if code != "" {
		w.Header().Set("x-ms-error-code", code)
	}
	w.Header().Set("x-ms-request-id", "id-1")
	w.WriteHeader(status)
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
		{409, "BlobAlreadyExists", backend.ErrExist, "", false},
		{403, "UnauthorizedBlobOverwrite", backend.ErrExist, "", false},
		{503, "ServerBusy", backend.ErrUnavailable, backend.Throttled, true},
		{429, "", backend.ErrUnavailable, backend.Throttled, true},
		{400, "InvalidBlockList", backend.ErrUnavailable, backend.Throttled, true},
		{500, "InternalError", backend.ErrUnknownOutcome, backend.Unreachable, true},
		{500, "OperationTimedOut", backend.ErrUnknownOutcome, backend.Unreachable, true},
		{502, "", backend.ErrUnknownOutcome, backend.Unreachable, true},
		{403, "AuthenticationFailed", backend.ErrUnauthorized, backend.WrongKey, false},
		{401, "NoAuthenticationInformation", backend.ErrUnauthorized, backend.WrongKey, false},
		{403, "AuthorizationFailure", backend.ErrUnauthorized, backend.Denied, false},
		{403, "AuthorizationPermissionMismatch", backend.ErrUnauthorized, backend.Denied, false},
		{403, "KeyBasedAuthenticationNotPermitted", backend.ErrUnauthorized, backend.Denied, false},
		{404, "ContainerNotFound", backend.ErrNotExist, backend.NoStore, false},
		{409, "BlobArchived", backend.ErrUnavailable, backend.Archived, false},
		{409, "BlobImmutableDueToPolicy", backend.ErrUnauthorized, backend.Immutable, false},
		{400, "Crc64Mismatch", backend.ErrUnavailable, backend.Mangled, true},
		{400, "InvalidHeaderValue", backend.ErrUnsupported, backend.Misconfigured, false},
		{507, "", backend.ErrNoSpace, "", false},
	} {
		t.Run(fmt.Sprint(tt.status, tt.code), func(t *testing.T) {
			o := stub(t, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				refuse(w, tt.status, tt.code)
			})
			err := open(t, o).Put(t.Context(), "key", []byte("data"))
			if !errors.Is(err, tt.kind) {
				t.Errorf("Put = %v, want %v", err, tt.kind)
			}
			trouble, _ := errors.AsType[*backend.TroubleError](err)
			if tt.cause == "" != (trouble == nil) || trouble != nil && (trouble.Cause != tt.cause || trouble.Advice == "") {
				t.Errorf("Put = %v, of cause %v; want %q", err, trouble, tt.cause)
			}
			if retry.Transient(err) != tt.again {
				t.Errorf("Put = %v, tried again: %t", err, !tt.again)
			}
			if !errors.Is(tt.kind, backend.ErrUnknownOutcome) && errors.Is(err, backend.ErrUnknownOutcome) {
				t.Errorf("Put = %v, and the outcome is known", err)
			}
			if strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "GET") {
				t.Errorf("the error is the SDK's: %v", err)
			}
		})
	}
}

// TestRefused: one code of Azure's, told apart by what we know ourselves.
func TestRefused(t *testing.T) {
	o := stub(t, func(w http.ResponseWriter, _ *http.Request) { refuse(w, 403, "AuthenticationFailed") })
	sas := func(end time.Time) string {
		return "?sv=2024-01-01&sp=rcl&sr=c&se=" + url.QueryEscape(end.UTC().Format(time.RFC3339)) + "&sig=secretsig"
	}
	for name, tt := range map[string]struct {
		set  func(*azure.Options)
		want backend.Cause
	}{
		"wrong":                {func(o *azure.Options) { o.Key, o.SAS = "", sas(time.Now().Add(time.Hour)) }, backend.WrongKey},
		"expired":              {func(o *azure.Options) { o.Key, o.SAS = "", sas(time.Now().Add(-time.Hour)) }, backend.Expired},
		"no base64":            {func(o *azure.Options) { o.Key = "%%secretsig" }, backend.WrongKey},
		"no connection string": {func(o *azure.Options) { o.ConnectionString = "secretsig" }, backend.WrongKey},
		"expired, from the string": {func(o *azure.Options) {
			o.ConnectionString = "BlobEndpoint=" + o.Endpoint + ";SharedAccessSignature=" + sas(time.Now().Add(-time.Hour))[1:]
		}, backend.Expired},
	} {
		o := o
		tt.set(&o)
		err := open(t, o).Put(t.Context(), "key", nil)
		trouble, _ := errors.AsType[*backend.TroubleError](err)
		if trouble == nil || trouble.Cause != tt.want {
			t.Errorf("%s: Put = %v, want %q", name, err, tt.want)
		}
		if strings.Contains(err.Error(), "secretsig") {
			t.Errorf("%s: the error tells the signature: %v", name, err)
		}
	}
	skewed := stub(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat))
		refuse(w, 403, "AuthenticationFailed")
	})
	_, err := open(t, skewed).Stat(t.Context(), "key")
	if trouble, _ := errors.AsType[*backend.TroubleError](err); trouble == nil || trouble.Cause != backend.ClockSkew {
		t.Errorf("Stat with a wrong clock = %v", err)
	}

	// A connection that breaks has the URL in the error of net/http.
	gone := stub(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	gone.Key, gone.SAS = "", sas(time.Now().Add(time.Hour))
	err = open(t, gone).Put(t.Context(), "key", nil)
	if !errors.Is(err, backend.ErrUnknownOutcome) || strings.Contains(err.Error(), "secretsig") {
		t.Errorf("Put on a line that breaks = %v", err)
	}
}

// TestWrongKey: the server itself refuses.
func TestWrongKey(t *testing.T) {
	o := servertest.Azure(t)
	o.Key = "AAAA" + o.Key[4:]
	if err := open(t, o).Put(t.Context(), "key", nil); !errors.Is(err, backend.ErrUnauthorized) {
		t.Errorf("Put with a wrong key = %v, want ErrUnauthorized", err)
	}
	o = servertest.Azure(t)
	o.Container = "nothere"
	_, err := open(t, o).Stat(t.Context(), "key")
	for _, lerr := range open(t, o).List(t.Context(), "") {
		err = lerr
	}
	if trouble, _ := errors.AsType[*backend.TroubleError](err); trouble == nil || trouble.Cause != backend.NoStore {
		t.Errorf("List of a missing container = %v, want no such store", err)
	}
}

// TestManagedIdentity: tokens come from the endpoint that an identity has, and
// again when they are about to expire.
func TestManagedIdentity(t *testing.T) {
	var issued atomic.Int64
	tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-IDENTITY-HEADER") != "let me in" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]string{
			"access_token": fmt.Sprint("token-", issued.Add(1)), "resource": "https://storage.azure.com", "token_type": "Bearer",
			"expires_on": fmt.Sprint(time.Now().Add(time.Minute).Unix()),
		})
	}))
	defer tokens.Close()
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "AZURE_") {
			t.Setenv(name, "")
		}
	}
	t.Setenv("IDENTITY_ENDPOINT", tokens.URL)
	t.Setenv("IDENTITY_HEADER", "let me in")
	var seen atomic.Pointer[string]
	store := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token := r.Header.Get("Authorization")
		seen.Store(&token)
		w.WriteHeader(http.StatusCreated)
	}))
	defer store.Close()
	b := open(t, azure.Options{
		Container: "box", Endpoint: store.URL + "/acc",
		CA: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: store.Certificate().Raw}),
	})
	for i := range 3 {
		if err := b.Put(t.Context(), backend.Key(fmt.Sprint("k", i)), nil); err != nil {
			t.Fatal(err)
		}
	}
	if token := seen.Load(); token == nil || !strings.HasPrefix(*token, "Bearer token-") || issued.Load() == 0 {
		t.Errorf("the store saw %v after %d tokens", token, issued.Load())
	}
}

// TestLostReply: as in package s3, by the answers of Azure.
func TestLostReply(t *testing.T) {
	objects := map[string][]byte{}
	n := 0
	o := stub(t, func(w http.ResponseWriter, r *http.Request) {
		n++
		body, _ := io.ReadAll(r.Body)
		data, there := objects[r.URL.Path]
		switch {
		case r.Method == http.MethodPut && there:
			refuse(w, 409, "BlobAlreadyExists")
			return
		case r.Method == http.MethodPut:
			objects[r.URL.Path] = body
			if n == 1 {
				panic(http.ErrAbortHandler) // the answer is swallowed
			}
			w.WriteHeader(http.StatusCreated)
		default:
			_, _ = w.Write(data)
		}
	})
	quick := retry.Policy{First: time.Millisecond, Longest: time.Millisecond}
	if err := retry.New(open(t, o), quick).Put(t.Context(), "log/1", []byte("mine")); err != nil {
		t.Errorf("Put = %v, want nil: the object there is ours", err)
	}
	if n != 3 {
		t.Errorf("%d requests, want put, put, get", n)
	}
}

// TestVersion: another version of the API is asked for.
func TestVersion(t *testing.T) {
	o := stub(t, func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("X-Ms-Version"); got != "2024-11-04" {
			t.Errorf("x-ms-version = %q", got)
		}
		if r.Header.Get("If-None-Match") != "*" || r.Header.Get("X-Ms-Access-Tier") != "Cool" || r.Header.Get("X-Ms-Content-Crc64") == "" {
			t.Errorf("headers %v", r.Header)
		}
		w.WriteHeader(http.StatusCreated)
	})
	o.APIVersion, o.Tier = "2024-11-04", "Cool"
	if err := open(t, o).Put(t.Context(), "key", []byte("x")); err != nil {
		t.Error(err)
	}
}

func TestOptions(t *testing.T) {
	for name, o := range map[string]azure.Options{
		"no container": {Account: "a"}, "no account": {Container: "c"}, "archive": {Container: "c", Account: "a", Tier: "Archive"},
		"key of nobody": {Container: "c", Endpoint: "https://h", Key: "AAAA"}, "prefix": {Container: "c", Account: "a", Prefix: "/x"},
		"token over http":       {Container: "c", Endpoint: "http://h"},
		"endpoint with a query": {Container: "c", Endpoint: "https://h/?sig=x"},
	} {
		if _, err := azure.New(o); err == nil {
			t.Errorf("%s: New takes %+v", name, o)
		}
	}
}
