// Package servertest finds the servers of object stores that tests run against.
// The test command starts them (.ci/test) and says by variables where they are.
// A test that finds none is skipped; where CI=true nothing may be left out, and
// it fails.
package servertest

import (
	"crypto/rand"
	"os"
	"strings"
	"testing"

	"github.com/cairn-backup/cairn/backend/s3"
)

// The variables, and what the servers are started with. None of it is a secret:
// the servers listen on the loopback interface while tests run.
const (
	EnvS3    = "CAIRN_TEST_S3"    // URL of versitygw
	EnvMinIO = "CAIRN_TEST_MINIO" // URL of MinIO; only the long proofs start it

	Bucket    = "cairn"
	AccessKey = "cairntest"
	SecretKey = "cairntest-secret"
)

// S3 returns how the S3 server is reached, below a prefix of its own for each
// call.
func S3(t testing.TB) s3.Options {
	t.Helper()
	return s3Options(find(t, EnvS3))
}

// MinIO is as S3 for the second server.
func MinIO(t testing.TB) s3.Options {
	t.Helper()
	url := os.Getenv(EnvMinIO)
	if url == "" {
		t.Skipf("%s names no server: .ci/prove starts one", EnvMinIO)
	}
	return s3Options(url)
}

func s3Options(url string) s3.Options {
	return s3.Options{
		Bucket: Bucket, Prefix: "test-" + strings.ToLower(rand.Text()), Endpoint: url, Region: "us-east-1", PathStyle: true,
		AccessKey: AccessKey, SecretKey: SecretKey,
	}
}

func find(t testing.TB, variable string) string {
	t.Helper()
	url := os.Getenv(variable)
	switch {
	case url != "":
	case os.Getenv("CI") == "true":
		t.Fatalf("%s names no server, and CI=true: run the tests by .ci/test, which starts it", variable)
	default:
		t.Skipf("%s names no server: .ci/test starts one", variable)
	}
	return url
}
