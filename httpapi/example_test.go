package httpapi_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"

	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/engine/target"
	"github.com/cairn-backup/cairn/httpapi"
)

// The API is a handler like any other, here for a directory of the program's own.
func Example() {
	ctx := context.Background()
	data, err := os.MkdirTemp("", "data")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(data)
	if err := os.WriteFile(filepath.Join(data, "hello.txt"), []byte("hello"), 0o600); err != nil {
		panic(err)
	}
	repo, err := engine.OpenOrInit(ctx, new(mem.Backend), secret, engine.Options{})
	if err != nil {
		panic(err)
	}
	defer repo.Close()

	server, err := httpapi.Open(ctx,
		func(context.Context) (httpapi.Repository, error) { return repo, nil },
		httpapi.Data{Name: "app", Source: source.Dir(data), Target: target.Swap(data)},
		httpapi.Options{})
	if err != nil {
		panic(err)
	}
	defer server.Close(ctx)
	web := httptest.NewServer(server) // or http.Server{Handler: server}
	defer web.Close()

	req, err := http.NewRequestWithContext(ctx, http.MethodPost, web.URL+"/backups/create", nil)
	if err != nil {
		panic(err)
	}
	resp, err := web.Client().Do(req)
	if err != nil {
		panic(err)
	}
	defer resp.Body.Close()
	n, err := server.Count(ctx)
	fmt.Println(resp.Status, n, err)
	// Output: 200 OK 1 <nil>
}
