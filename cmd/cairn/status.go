package main

import (
	"context"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cairn-backup/cairn/manifest"
)

type statusFlags struct {
	selection snapshotsFlags
	names     []string
	maxAge    string
}

func (a *app) statusCommand() *cobra.Command {
	var f statusFlags
	cmd := &cobra.Command{
		Use:   "status [--max-age D]",
		Short: "Say how old the newest snapshots are, for monitoring",
		Long: `Say how old the newest complete snapshot is of each data set, which is all that
has the same host, name and paths. Deleted snapshots and those that lack what
could not be read do not count.

With --max-age the exit code is 0 if each of them is younger than D, and else,
or if the log of the repository is damaged, 1 with one sentence that says why. D
is such as 90m, 26h, 7d or 1w2d. The other flags choose the data sets.`,
		Example: `  cairn status
  cairn status --max-age 26h --host web1 --tag daily`,
		Args: atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("max-age") && f.maxAge == "" {
				return usagef("--max-age is empty")
			}
			return a.status(cmd.Context(), f)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&f.maxAge, "max-age", "", "fail unless the newest snapshot is younger than this `time`")
	fs.StringArrayVar(&f.selection.tags, "tag", nil, "only snapshots with this `tag` (repeated: with all of them)")
	fs.StringArrayVar(&f.selection.hosts, "host", nil, "only those of this `host` (repeated: of any of them)")
	fs.StringArrayVar(&f.selection.kinds, "kind", nil, "only those of this `kind`: files, database, assets or stream (repeated: of any of them)")
	fs.StringArrayVar(&f.names, "name", nil, "only those of the data set of this `name` (repeated: of any of them)")
	return cmd
}

func (a *app) status(ctx context.Context, f statusFlags) error {
	filter, err := f.selection.filter()
	if err != nil {
		return err
	}
	filter.Names = f.names
	var maxAge time.Duration // 0: any
	if f.maxAge != "" {
		if maxAge, err = parseAge("--max-age", f.maxAge); err != nil {
			return err
		}
	}
	repo, l, err := a.open(ctx, looks)
	if err != nil {
		return err
	}
	defer repo.Close() // only read
	list, err := collect(ctx, repo, filter)
	if err != nil {
		return err
	}
	st := status{
		repository: l.text, id: repo.ID(), problem: repo.Problem(), now: time.Now(), maxAge: maxAge, sets: dataSets(list),
	}
	if a.out.json {
		if err := a.out.document(st.document()); err != nil {
			return err
		}
	} else if err := a.printStatus(st); err != nil {
		return err
	}
	return st.verdict()
}

// A status is what is known of a repository at one moment.
type status struct {
	repository, id string
	problem        error // of the log, or nil
	now            time.Time
	maxAge         time.Duration // 0: any
	sets           []dataSet
}

// A dataSet is the snapshots of one host, name and roots, which follow each
// other.
type dataSet struct {
	last   manifest.Snapshot  // the newest
	newest *manifest.Snapshot // the newest complete one, nil if there is none
}

// dataSets returns the data sets of list, in the order of their first snapshots.
func dataSets(list []manifest.Snapshot) []dataSet {
	var sets []dataSet
	at := make(map[[16]byte]int) // by group
	for _, s := range list {
		i, ok := at[s.Group]
		if !ok {
			i = len(sets)
			at[s.Group] = i
			sets = append(sets, dataSet{})
		}
		sets[i].last = s
		if newest := sets[i].newest; s.Complete && (newest == nil || !taken(s).Before(taken(*newest))) {
			sets[i].newest = &s
		}
	}
	return sets
}

// taken returns when the data of s were read. A time that the user gave may be
// older than that, but not newer: it would hide that no backup is made any more.
func taken(s manifest.Snapshot) time.Time {
	if !s.Began.IsZero() && s.Began.Compare(s.Start) < 0 {
		return s.Began.Time()
	}
	return s.Start.Time()
}

// age returns how old the newest complete snapshot of d is, if there is one.
func (st status) age(d dataSet) time.Duration { return max(0, st.now.Sub(taken(*d.newest))) }

// fresh reports whether d has a snapshot that is young enough.
func (st status) fresh(d dataSet) bool {
	return d.newest != nil && (st.maxAge == 0 || st.age(d) < st.maxAge)
}

// verdict returns in one error what is wrong.
func (st status) verdict() error {
	if st.problem != nil && st.maxAge != 0 {
		return fmt.Errorf("the log of the repository is damaged: %w", st.problem)
	}
	if st.maxAge == 0 {
		return nil
	}
	if len(st.sets) == 0 {
		return fmt.Errorf("there is no snapshot that is asked for in %s", printable(st.repository))
	}
	var stale []string
	for _, d := range st.sets {
		switch {
		case d.newest == nil:
			stale = append(stale, fmt.Sprintf("there is no complete snapshot of %s", describe(d.last)))
		case !st.fresh(d):
			stale = append(stale, fmt.Sprintf("the newest complete snapshot of %s is %s old", describe(d.last), ageText(st.age(d))))
		}
	}
	if len(stale) == 0 {
		return nil
	}
	return fmt.Errorf("%s; it should be younger than %s", strings.Join(stale, ", "), ageText(st.maxAge))
}

func (a *app) printStatus(st status) error {
	if a.out.quiet {
		return nil
	}
	a.out.say("repository %s (%s)", printable(st.repository), st.id)
	if st.problem != nil {
		a.out.say("its log is damaged, what follows is from before that: %s", oneLine(st.problem))
	}
	if len(st.sets) == 0 {
		a.out.say("no snapshots")
		return nil
	}
	var t table
	t.row("NEWEST", "TIME", "AGE", "OF", "NOTES")
	for _, d := range st.sets {
		s, age, notes := d.last, "-", "[no complete one]"
		if d.newest != nil {
			s, age, notes = *d.newest, ageText(st.age(d)), notesOf(*d.newest)
			if !st.fresh(d) {
				notes = strings.TrimSpace(notes + " [too old]")
			}
		}
		t.row(s.ID.Short(), localTime(s.Start), age, describe(s), notes)
	}
	return t.print(a.out)
}

type statusJSON struct {
	Schema     int           `json:"schema"`
	Repository string        `json:"repository"`
	ID         string        `json:"id"`
	OK         bool          `json:"ok"`
	Error      string        `json:"error"`   // what is not ok, "" if all is
	Problem    string        `json:"problem"` // of the log, "" if there is none
	MaxAge     *float64      `json:"max_age"` // seconds, null if none was given
	Sets       []dataSetJSON `json:"sets"`
}

type dataSetJSON struct {
	Host   string        `json:"host"`
	Name   string        `json:"name"`
	Roots  []rootJSON    `json:"roots"`
	OK     bool          `json:"ok"`
	Age    *float64      `json:"age"`    // seconds, null without a complete snapshot
	Newest *snapshotJSON `json:"newest"` // complete one, null if there is none
}

func (st status) document() statusJSON {
	doc := statusJSON{Schema: schema, Repository: st.repository, ID: st.id, OK: true, Sets: []dataSetJSON{}}
	if err := st.verdict(); err != nil {
		doc.OK, doc.Error = false, oneLine(err)
	}
	if st.problem != nil {
		doc.Problem = oneLine(st.problem)
	}
	if st.maxAge != 0 {
		doc.MaxAge = new(st.maxAge.Seconds())
	}
	for _, d := range st.sets {
		last := snapshotOf(d.last)
		j := dataSetJSON{Host: last.Host, Name: last.Name, Roots: last.Roots, OK: st.fresh(d)}
		if d.newest != nil {
			j.Age, j.Newest = new(st.age(d).Seconds()), new(snapshotOf(*d.newest))
		}
		doc.Sets = append(doc.Sets, j)
	}
	return doc
}

var ageParts = regexp.MustCompile(`^(?:(\d{1,5})w)?(?:(\d{1,5})d)?(.*)$`)

// parseAge reads a time such as 26h, 7d or 1w2d12h.
func parseAge(flag, text string) (time.Duration, error) {
	const day = 24 * time.Hour
	m := ageParts.FindStringSubmatch(text)
	if m == nil {
		return 0, badAge(flag, text)
	}
	var age time.Duration
	for i, unit := range []time.Duration{7 * day, day} {
		n, _ := strconv.Atoi(m[1+i]) // "" is 0
		age += time.Duration(n) * unit
	}
	if rest := m[3]; rest != "" {
		d, err := time.ParseDuration(rest)
		if err != nil || d < 0 || d > math.MaxInt64-age {
			return 0, badAge(flag, text)
		}
		age += d
	}
	if age <= 0 {
		return 0, badAge(flag, text)
	}
	return age, nil
}

func badAge(flag, text string) error {
	return usagef("%s is a time such as 90m, 26h, 7d or 1w2d, not %q", flag, printableText(text))
}

// ageText formats how old something is, as exactly as matters.
func ageText(d time.Duration) string {
	switch {
	case d < 48*time.Hour:
		return span(d)
	default:
		return fmt.Sprintf("%d d %02d h", int(d.Hours())/24, int(d.Hours())%24)
	}
}
