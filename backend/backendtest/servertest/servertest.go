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

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"github.com/cairn-backup/cairn/backend/azure"
	"github.com/cairn-backup/cairn/backend/s3"
)

// The variables, and what the servers are started with. None of it is a secret:
// the servers listen on the loopback interface while tests run.
const (
	EnvS3    = "CAIRN_TEST_S3"    // URL of versitygw
	EnvAzure = "CAIRN_TEST_AZURE" // URL of Azurite
	EnvMinIO = "CAIRN_TEST_MINIO" // URL of MinIO; only the long proofs start it

	Bucket    = "cairn"
	AccessKey = "cairntest"
	SecretKey = "cairntest-secret"

	// Account and AccountKey are those that Azurite has, as Microsoft publishes
	// them.
	Account    = "devstoreaccount1"
	AccountKey = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
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

// Azure returns how the Azure server is reached, below a prefix of its own for
// each call. It makes the container if it is not there.
func Azure(t testing.TB) azure.Options {
	t.Helper()
	url := find(t, EnvAzure) + "/" + Account
	key, err := container.NewSharedKeyCredential(Account, AccountKey)
	if err != nil {
		t.Fatal(err)
	}
	c, err := container.NewClientWithSharedKeyCredential(url+"/"+Bucket, key, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Create(t.Context(), nil); err != nil && !bloberror.HasCode(err, bloberror.ContainerAlreadyExists) {
		t.Fatal(err)
	}
	return azure.Options{
		Container: Bucket, Prefix: "test-" + strings.ToLower(rand.Text()), Endpoint: url, Account: Account, Key: AccountKey,
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
