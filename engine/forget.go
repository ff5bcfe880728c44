package engine

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/cairn-backup/cairn/engine/internal/log"
	"github.com/cairn-backup/cairn/engine/internal/rule"
	"github.com/cairn-backup/cairn/manifest"
)

// ForgetOptions says which snapshots a policy decides about, and when. The zero
// value works.
type ForgetOptions struct {
	// Filter selects the snapshots; the others stay as they are and count for
	// nothing. Default: all.
	Filter manifest.Filter

	// At is the moment of the decision, and its time zone that in which hours,
	// days, weeks, months and years begin. Default: now, in UTC, so that all
	// machines decide alike.
	At time.Time
}

// A ForgetPlan says which snapshots a policy keeps, which it forgets, and why.
// Making it only reads. Its fields are for reading; it is not for concurrent use.
type ForgetPlan struct {
	Policy manifest.Policy
	At     time.Time
	Record uint64 // the last one that was read
	Groups []ForgetGroup

	repo   *Repository
	filter manifest.Filter
	at     log.Position
	roots  map[manifest.ID][]manifest.Root // as far as they were needed
	forget []manifest.ID                   // in the order of Groups
}

// A ForgetGroup is snapshots that belong together, with what they have in
// common; what the policy does not group by is empty.
type ForgetGroup struct {
	Host, Name string
	Roots      []manifest.Root // of the newest; nil if that cannot be opened

	// Decisions are about each snapshot, the oldest first. Of Decision.Snapshot
	// only the summary is set, and Roots if they were needed.
	Decisions []manifest.Decision
}

// A ForgetReport says what Run did.
type ForgetReport struct {
	Forgotten []manifest.ID // by this run
	Gone      []manifest.ID // of the plan, but forgotten by others before
	Traffic   Traffic       // of Run; the plan's is not in it
}

// PlanForget decides by p which snapshots are kept. The error is
// manifest.ErrInvalid or ErrEmptyPolicy if p cannot be applied, and ErrRolledBack,
// ErrLogHole or ErrLogDamaged if the log has a problem, since nothing may be
// decided from the half of it.
func (r *Repository) PlanForget(ctx context.Context, p manifest.Policy, opts ForgetOptions) (*ForgetPlan, error) {
	plan := &ForgetPlan{
		Policy: p, At: opts.At, repo: r, filter: opts.Filter, roots: make(map[manifest.ID][]manifest.Root),
	}
	if plan.At.IsZero() {
		plan.At = r.now().UTC()
	}
	if err := plan.make(ctx); err != nil {
		return nil, fmt.Errorf("plan forget: %w", err)
	}
	return plan, nil
}

func (p *ForgetPlan) make(ctx context.Context) error {
	r := p.repo
	if err := p.Policy.Validate(); err != nil {
		return err
	}
	if err := r.readable(); err != nil {
		return err
	}
	if err := r.refresh(ctx); err != nil {
		return err
	}
	if err := r.log.Problem(); err != nil {
		return err
	}
	var infos []*log.SnapshotInfo
	err := r.log.View(func(st *log.State) error {
		p.at = st.Position()
		infos = snapshotsOf(st)
		return nil
	})
	if err != nil {
		return err
	}
	decisions, err := p.decide(infos)
	if err != nil {
		return err
	}
	p.Record = p.at.N
	for i, d := range decisions {
		if i == 0 || d.Group != decisions[i-1].Group {
			p.Groups = append(p.Groups, ForgetGroup{})
		}
		g := &p.Groups[len(p.Groups)-1]
		g.Decisions = append(g.Decisions, d)
		if !d.Keep {
			p.forget = append(p.forget, d.Snapshot.ID)
		}
	}
	p.describe(infos)
	return ctx.Err()
}

// decide applies the policy to those of infos, the oldest first, that the filter
// selects. It is quick, and calls nobody.
func (p *ForgetPlan) decide(infos []*log.SnapshotInfo) ([]manifest.Decision, error) {
	chosen := selectInfos(infos, p.filter)
	list := make([]manifest.Snapshot, len(chosen))
	for i, info := range chosen {
		list[i].Summary = info.Summary
		if p.Policy.GroupBy.NeedsRoots() {
			roots, err := p.rootsOf(info)
			if err != nil {
				return nil, err
			}
			list[i].Roots = roots
		}
	}
	return p.Policy.Apply(list, p.At)
}

func (p *ForgetPlan) rootsOf(info *log.SnapshotInfo) ([]manifest.Root, error) {
	if roots, ok := p.roots[info.Summary.ID]; ok {
		return roots, nil
	}
	snap, err := p.repo.openSnapshot(info)
	if err != nil {
		return nil, err
	}
	p.roots[snap.ID] = snap.Roots
	return snap.Roots, nil
}

// describe says of each group what its snapshots have in common.
func (p *ForgetPlan) describe(infos []*log.SnapshotInfo) {
	byID := make(map[manifest.ID]*log.SnapshotInfo, len(infos))
	for _, info := range infos {
		byID[info.Summary.ID] = info
	}
	by := p.Policy.GroupBy
	for i := range p.Groups {
		g := &p.Groups[i]
		newest := g.Decisions[len(g.Decisions)-1].Snapshot
		if by.Has(manifest.ByHost) {
			g.Host = newest.Host
		}
		if by.Has(manifest.ByName) {
			g.Name = newest.Name
		}
		if by.Has(manifest.ByRoots) {
			g.Roots, _ = p.rootsOf(byID[newest.ID]) // for people to read; the decision stands without
		}
	}
}

// Forget returns the snapshots that are to be forgotten, in the order of Groups.
func (p *ForgetPlan) Forget() []manifest.ID { return append([]manifest.ID(nil), p.forget...) }

// Total returns about how many snapshots the plan decides.
func (p *ForgetPlan) Total() int {
	n := 0
	for _, g := range p.Groups {
		n += len(g.Decisions)
	}
	return n
}

// Empty reports whether nothing is to be forgotten.
func (p *ForgetPlan) Empty() bool { return len(p.forget) == 0 }

// String says in a first line what the plan does and in one for each snapshot
// what becomes of it, and why.
func (p *ForgetPlan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "keep %d of %d snapshots, forget %d, by %s in time zone %s",
		p.Total()-len(p.forget), p.Total(), len(p.forget), p.Policy, p.At.Location())
	for _, g := range p.Groups {
		for _, d := range g.Decisions {
			verb := "forget"
			if d.Keep {
				verb = "keep"
			}
			fmt.Fprintf(&b, "\n%-6s  %s  %s  %s", verb, d.Snapshot.ID.Short(), d.Snapshot.Start, d.Why())
		}
	}
	return b.String()
}

// Run forgets what the plan says, all of it by one record or nothing. It frees no
// space: PlanGC does, and until it has, Undelete brings the snapshots back.
//
// If the log has grown since the plan was made, the policy is applied to what is
// there now, and must still forget all of the plan: ErrPlanStale if not, for
// instance since one was pinned meanwhile. Newer snapshots alone make no plan
// stale; what could be forgotten because of them is left to the next plan. After
// ErrUnknownOutcome Run may be called again.
func (p *ForgetPlan) Run(ctx context.Context) (ForgetReport, error) {
	var report ForgetReport
	if err := p.repo.writable(); err != nil {
		return report, fmt.Errorf("forget: %w", err)
	}
	if p.Empty() {
		return report, nil
	}
	before := p.repo.Traffic()
	err := p.repo.append(ctx, func(st *log.State) ([]log.Effect, error) {
		var err error
		if report, err = p.holds(st); err != nil || len(report.Forgotten) == 0 {
			return nil, err
		}
		return []log.Effect{log.Forget{IDs: report.Forgotten}}, nil
	})
	if err != nil {
		return ForgetReport{}, fmt.Errorf("forget: %w", err)
	}
	report.Traffic = p.repo.Traffic().Sub(before)
	return report, nil
}

// holds returns what of the plan is to be done in st.
func (p *ForgetPlan) holds(st *log.State) (report ForgetReport, err error) {
	if st.Position() == p.at || rule.Off(rule.Plan) {
		report.Forgotten = p.Forget()
		return report, nil
	}
	decisions, err := p.decide(snapshotsOf(st))
	if err != nil {
		return report, err
	}
	forgets := make(map[manifest.ID]bool, len(decisions))
	for _, d := range decisions {
		forgets[d.Snapshot.ID] = !d.Keep
	}
	for _, id := range p.forget {
		_, visible := st.Snapshot(id)
		switch {
		case !visible:
			report.Gone = append(report.Gone, id)
		case !forgets[id]:
			return ForgetReport{}, fmt.Errorf("snapshot %s is to be kept now: %w", id.Short(), ErrPlanStale)
		default:
			report.Forgotten = append(report.Forgotten, id)
		}
	}
	return report, nil
}
