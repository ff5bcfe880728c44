package main

import (
	"bytes"
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/cairn-backup/cairn/httpapi"
	"github.com/cairn-backup/cairn/manifest"
)

// TestSchedule holds when a backup is due, and that a round makes one and forgets
// what the policy does not keep, and nothing else.
func TestSchedule(t *testing.T) {
	repo, env := aRepository(t)
	data := someData(t, 1<<10)
	r := openWith(t, repo, env)
	defer r.Close()
	backUpAs(t, repo, env, data, "1.0.0_1500000000000") // of another data set, by its paths
	var logged bytes.Buffer
	d := &servedData{path: data, name: "scheduled", source: &dataSource{path: data}}
	server, err := httpapi.Open(t.Context(), func(context.Context) (httpapi.Repository, error) { return r, nil }, d.set(), httpapi.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close(t.Context())
	s := serving{
		flags: serveFlags{name: d.name, schedule: scheduleFlags{every: "6h", keep: manifest.Policy{Last: 2}}}, server: server,
		repos: &repositories{current: &servedRepository{repo: r}}, metrics: newMetrics(), logger: slog.New(slog.NewTextHandler(&logged, nil)),
	}
	if err := s.flags.schedule.check(); err != nil {
		t.Fatal(err)
	}
	if wait, err := s.due(t.Context()); wait != 0 || err != nil {
		t.Errorf("without a backup one is due in %v, %v", wait, err)
	}
	for range 4 {
		if err := s.round(t.Context()); err != nil {
			t.Fatalf("%v\n%s", err, logged.String())
		}
	}
	if n, err := server.Count(t.Context()); n != 2 || err != nil {
		t.Errorf("%d backups are left, %v\n%s", n, err, logged.String())
	}
	if wait, err := s.due(t.Context()); wait < 5*time.Hour || wait > 6*time.Hour || err != nil {
		t.Errorf("the next is due in %v, %v", wait, err)
	}
	others := 0
	for range r.Summaries(t.Context(), manifest.Filter{Names: []string{"default"}}) {
		others++
	}
	if others != 1 {
		t.Errorf("%d snapshots of another data set", others)
	}
	for _, step := range []string{"backup", "forget", "collect"} {
		if n := testutil.ToFloat64(s.metrics.steps.WithLabelValues(step, "done")); n != 4 {
			t.Errorf("%s: %v", step, n)
		}
	}
	d.source.path = data + "-gone"
	if err := s.round(t.Context()); err == nil || testutil.ToFloat64(s.metrics.steps.WithLabelValues("backup", "failed")) != 1 {
		t.Errorf("without data: %v", err)
	}
	if n, err := server.Count(t.Context()); n != 2 || err != nil {
		t.Errorf("after a failure %d backups are left, %v", n, err)
	}
}
