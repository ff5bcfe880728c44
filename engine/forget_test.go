package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/fault"
	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/manifest"
)

// forgetMoment is when the policies of these tests are applied.
var forgetMoment = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// daysAgo backs dir up as of so many days before forgetMoment.
func daysAgo(t testing.TB, r *engine.Repository, dir string, days int, hosts ...string) manifest.ID {
	t.Helper()
	opts := engine.BackupOptions{Time: forgetMoment.AddDate(0, 0, -days), Host: "web1"}
	if len(hosts) > 0 {
		opts.Host = hosts[0]
	}
	return backUp(t, r, source.Dir(dir), opts).Snapshot.ID
}

func planForget(t testing.TB, r *engine.Repository, p manifest.Policy) *engine.ForgetPlan {
	t.Helper()
	plan, err := r.PlanForget(t.Context(), p, engine.ForgetOptions{At: forgetMoment})
	if err != nil {
		t.Fatalf("PlanForget: %v", err)
	}
	return plan
}

func visible(t testing.TB, r *engine.Repository) []manifest.ID {
	t.Helper()
	var ids []manifest.ID
	for _, s := range list(t, r) {
		ids = append(ids, s.ID)
	}
	return ids
}

func TestForget(t *testing.T) {
	t.Parallel()
	r, b := fresh(t)
	dir := write(t, map[string][]byte{"a": random(1, 3000)})
	var ids []manifest.ID
	for days := 4; days >= 0; days-- {
		ids = append(ids, daysAgo(t, r, dir, days))
	}
	other := daysAgo(t, r, dir, 30, "web2")
	before := len(objects(t, b))

	plan := planForget(t, r, manifest.Policy{Last: 1, Daily: 2})
	if len(objects(t, b)) != before {
		t.Error("PlanForget wrote something")
	}
	if got := plan.Forget(); !slices.Equal(got, ids[:3]) || plan.Total() != 6 || plan.Empty() || len(plan.Groups) != 2 {
		t.Fatalf("plan\n%v", plan)
	}
	g := plan.Groups[1]
	if g.Host != "web1" || len(g.Roots) != 1 || g.Roots[0].Path != dir || len(g.Decisions) != 5 || plan.Groups[0].Decisions[0].Snapshot.ID != other {
		t.Errorf("the group of web1 is %+v", g)
	}
	for _, want := range []string{
		"keep 3 of 6 snapshots, forget 3, by last 1, daily 2 in time zone UTC\n",
		"\nforget  " + ids[0].Short() + "  2026-11-18T12:00:00.000000000Z  beyond last 1, beyond daily 2\n",
		"\nkeep    " + ids[4].Short() + "  2026-11-22T12:00:00.000000000Z  last 1 of 1, daily 1 of 2 (2026-11-22)",
	} {
		if !strings.Contains(plan.String(), want) {
			t.Errorf("the plan does not say %q:\n%v", want, plan)
		}
	}
	report, err := plan.Run(t.Context())
	if err != nil || !slices.Equal(report.Forgotten, ids[:3]) || len(report.Gone) != 0 {
		t.Fatalf("Run = %+v, %v", report, err)
	}
	if got := visible(t, r); !slices.Equal(got, []manifest.ID{other, ids[3], ids[4]}) {
		t.Errorf("%v are left of %v and %v", got, ids, other)
	}
	if n := len(objects(t, b)); n != before+1 {
		t.Errorf("%d objects were written, want one record", n-before)
	}
	// Again: there is nothing left to do, and nothing is written.
	report, err = plan.Run(t.Context())
	if err != nil || len(report.Forgotten) != 0 || !slices.Equal(report.Gone, ids[:3]) || len(objects(t, b)) != before+1 {
		t.Errorf("a second Run = %+v, %v", report, err)
	}
	if err := r.Undelete(t.Context(), ids[0]); err != nil {
		t.Errorf("Undelete: %v", err)
	}
	same(t, dir, restore(t, r, ids[0]))
	whole(t, r)
}

func TestForgetJSON(t *testing.T) {
	t.Parallel()
	r, _ := fresh(t)
	dir := write(t, map[string][]byte{"a": random(1, 3000)})
	old, last := daysAgo(t, r, dir, 0), daysAgo(t, r, dir, 0)
	for _, by := range []manifest.GroupBy{0, manifest.ByRoots} {
		text, err := json.Marshal(planForget(t, r, manifest.Policy{Daily: 2, GroupBy: by}))
		if err != nil {
			t.Fatal(err)
		}
		var doc struct {
			Keep, Forget int
			Groups       []struct {
				Host      string
				Roots     []struct{ Path string }
				Snapshots []struct {
					ID      manifest.ID
					Keep    bool
					Reasons []struct {
						Rule, Bucket, Text string
						Newer              manifest.ID
					}
				}
			}
		}
		if err := json.Unmarshal(text, &doc); err != nil {
			t.Fatal(err)
		}
		g := doc.Groups[0]
		first, second := g.Snapshots[0], g.Snapshots[1]
		if first.ID == last { // the end of a backup decides where times are equal
			t.Fatalf("%s", text)
		}
		if doc.Keep != 1 || doc.Forget != 1 || g.Roots[0].Path != dir || first.ID != old || first.Keep || !second.Keep ||
			first.Reasons[0].Newer != last || second.Reasons[0].Rule != "daily" || second.Reasons[0].Bucket != "2026-11-22" {
			t.Errorf("by %v: %s", by, text)
		}
		if wantHost := map[bool]string{true: "web1"}[by == 0]; g.Host != wantHost {
			t.Errorf("by %v: host %q, want %q", by, g.Host, wantHost)
		}
	}
}

func TestForgetFilter(t *testing.T) {
	t.Parallel()
	r, _ := fresh(t)
	dir := write(t, map[string][]byte{"a": random(1, 3000)})
	one, two := daysAgo(t, r, dir, 3, "one"), daysAgo(t, r, dir, 3, "two")
	daysAgo(t, r, dir, 1, "one")
	daysAgo(t, r, dir, 1, "two")
	plan, err := r.PlanForget(t.Context(), manifest.Policy{Last: 1}, engine.ForgetOptions{Filter: manifest.Filter{Hosts: []string{"two"}}})
	if err != nil {
		t.Fatal(err)
	}
	daysAgo(t, r, dir, 0, "one")
	if report, err := plan.Run(t.Context()); err != nil || !slices.Equal(report.Forgotten, []manifest.ID{two}) {
		t.Fatalf("Run = %+v, %v", report, err)
	}
	if !slices.Contains(visible(t, r), one) {
		t.Error("a snapshot of another host was forgotten")
	}
}

// TestForgetStale: a plan is checked again if the log has grown.
func TestForgetStale(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		meanwhile func(t *testing.T, other *engine.Repository, dir string, ids []manifest.ID)
		want      error
		forgotten []int // places in ids
	}{
		"newer ones": {func(t *testing.T, other *engine.Repository, dir string, _ []manifest.ID) {
			daysAgo(t, other, dir, -1)
			daysAgo(t, other, dir, 0, "web2")
		}, nil, []int{0, 1}},
		"one was forgotten": {func(t *testing.T, other *engine.Repository, _ string, ids []manifest.ID) {
			forget(t, other, ids[0])
		}, nil, []int{1}},
		"one was pinned": {func(t *testing.T, other *engine.Repository, _ string, ids []manifest.ID) {
			if err := other.Annotate(t.Context(), ids[1], manifest.Annotation{Pin: new(true)}); err != nil {
				t.Fatal(err)
			}
		}, engine.ErrPlanStale, nil},
		"the others are gone": {func(t *testing.T, other *engine.Repository, _ string, ids []manifest.ID) {
			forget(t, other, ids[2], ids[3])
		}, engine.ErrPlanStale, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, b := fresh(t)
			dir := write(t, map[string][]byte{"a": random(1, 3000)})
			var ids []manifest.ID
			for days := 4; days > 0; days-- {
				ids = append(ids, daysAgo(t, r, dir, days))
			}
			plan := planForget(t, r, manifest.Policy{Last: 2})
			tt.meanwhile(t, open(t, b, engine.Options{}), dir, ids)
			report, err := plan.Run(t.Context())
			if !errors.Is(err, tt.want) {
				t.Fatalf("Run = %v, want %v", err, tt.want)
			}
			var want []manifest.ID
			for _, i := range tt.forgotten {
				want = append(want, ids[i])
			}
			if !slices.Equal(report.Forgotten, want) {
				t.Errorf("Run forgot %v, want %v of %v", report.Forgotten, want, ids)
			}
			left := visible(t, r)
			for _, id := range ids[:2] {
				if tt.want != nil && !slices.Contains(left, id) {
					t.Errorf("a stale plan forgot %v", id)
				}
			}
		})
	}
}

// TestForgetLastGood: what went wrong does not push out the last good snapshot.
func TestForgetLastGood(t *testing.T) {
	t.Parallel()
	r, _ := fresh(t)
	dir := write(t, map[string][]byte{"a": random(1, 2<<20)})
	old, good := daysAgo(t, r, dir, 9), daysAgo(t, r, dir, 8)
	update(t, dir, map[string][]byte{"a": nil})
	for days := 7; days > 0; days-- {
		daysAgo(t, r, dir, days)
	}
	plan := planForget(t, r, manifest.Policy{Last: 1, Daily: 2})
	if _, err := plan.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	left := visible(t, r)
	if !slices.Contains(left, good) || !slices.Contains(left, old) || len(left) != 4 {
		t.Errorf("%v are left, of which %v and %v are good:\n%v", left, old, good, plan)
	}
	// Until somebody says that this is right.
	if err := r.Annotate(t.Context(), left[3], manifest.Annotation{Add: []string{manifest.TagAccepted}}); err != nil {
		t.Fatal(err)
	}
	if _, err := planForget(t, r, manifest.Policy{Last: 1}).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := visible(t, r); !slices.Equal(got, left[3:]) {
		t.Errorf("%v are left, want %v", got, left[3:])
	}
}

func TestForgetErrors(t *testing.T) {
	t.Parallel()
	r, b := fresh(t)
	dir := write(t, map[string][]byte{"a": random(1, 3000)})
	daysAgo(t, r, dir, 1)
	daysAgo(t, r, dir, 0)
	if _, err := r.PlanForget(t.Context(), manifest.Policy{}, engine.ForgetOptions{}); !errors.Is(err, engine.ErrEmptyPolicy) {
		t.Errorf("PlanForget with an empty policy: %v", err)
	}
	if _, err := r.PlanForget(t.Context(), manifest.Policy{Last: -3}, engine.ForgetOptions{}); !errors.Is(err, manifest.ErrInvalid) {
		t.Errorf("PlanForget with a wrong policy: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := planForget(t, r, manifest.Policy{Last: 1}).Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Run, cancelled: %v", err)
	}
	reader := open(t, b, engine.Options{ReadOnly: true})
	if _, err := planForget(t, reader, manifest.Policy{Last: 1}).Run(t.Context()); !errors.Is(err, engine.ErrReadOnly) {
		t.Errorf("Run on a repository opened for reading: %v", err)
	}
	if n := len(visible(t, r)); n != 2 {
		t.Errorf("%d snapshots are left, want 2", n)
	}
	all := objects(t, b)
	record := layout.Record(1)
	if _, ok := all[record]; !ok {
		t.Fatalf("there is no %s", record)
	}
	delete(all, record)
	if _, err := open(t, storeOf(t, all), engine.Options{}).PlanForget(t.Context(), manifest.Policy{Last: 1}, engine.ForgetOptions{}); !errors.Is(err, engine.ErrLogHole) {
		t.Errorf("PlanForget with a hole in the log: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.PlanForget(t.Context(), manifest.Policy{Last: 1}, engine.ForgetOptions{}); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("PlanForget after Close: %v", err)
	}
}

// A racing store lets others be faster, once, with the next record.
type racing struct {
	backend.Backend
	others func()
}

func (b *racing) Put(ctx context.Context, key backend.Key, data []byte) error {
	if others := b.others; others != nil && strings.HasPrefix(string(key), string(layout.Records)) {
		b.others = nil
		others()
	}
	return b.Backend.Put(ctx, key, data)
}

// TestForgetRace: a plan that held when its record was made, and does not any
// more when another one took its place, forgets nothing.
func TestForgetRace(t *testing.T) {
	t.Parallel()
	store := &racing{Backend: mem.New()}
	r := open(t, store, engine.Tuned(engine.Options{}, small))
	other := open(t, store.Backend, engine.Options{})
	dir := write(t, map[string][]byte{"a": random(1, 3000)})
	var ids []manifest.ID
	for days := 3; days > 0; days-- {
		ids = append(ids, daysAgo(t, r, dir, days))
	}
	plan := planForget(t, r, manifest.Policy{Last: 1})
	store.others = func() {
		if err := other.Annotate(t.Context(), ids[0], manifest.Annotation{Pin: new(true)}); err != nil {
			t.Error(err)
		}
	}
	if report, err := plan.Run(t.Context()); !errors.Is(err, engine.ErrPlanStale) || len(report.Forgotten) != 0 {
		t.Errorf("Run = %+v, %v, want ErrPlanStale", report, err)
	}
	if got := visible(t, other); !slices.Equal(got, ids) {
		t.Errorf("%v are left, want %v", got, ids)
	}
	store.others = func() { daysAgo(t, other, dir, 0) }
	if report, err := planForget(t, r, manifest.Policy{Last: 1}).Run(t.Context()); err != nil || !slices.Equal(report.Forgotten, ids[1:2]) {
		t.Errorf("Run = %+v, %v, want %v", report, err, ids[1:2])
	}
	if len(visible(t, other)) != 3 {
		t.Error("more was forgotten than planned")
	}
}

// TestForgetCrash: a crash at any write of Run leaves all of the plan undone or
// done.
func TestForgetCrash(t *testing.T) {
	t.Parallel()
	r, b := fresh(t)
	dir := write(t, map[string][]byte{"a": random(1, 3000)})
	for days := 3; days > 0; days-- {
		daysAgo(t, r, dir, days)
	}
	all := objects(t, b)
	for _, crash := range []func(backend.Backend, int) *fault.CrashBackend{fault.Crash, fault.CrashAfter} {
		for n := 0; ; n++ {
			disk := storeOf(t, all)
			c := crash(disk, n)
			repo := open(t, c, engine.Settle(engine.Options{}, time.Millisecond))
			_, err := planForget(t, repo, manifest.Policy{Last: 1}).Run(t.Context())
			left := len(visible(t, open(t, disk, engine.Options{})))
			if left != 3 && left != 1 || err == nil && left != 1 {
				t.Errorf("crash at write %d: %d snapshots are left, Run = %v", n, left, err)
			}
			if !c.Crashed() {
				break
			}
		}
	}
}
