package engine

import (
	"context"
	"fmt"

	"github.com/cairn-backup/cairn/engine/internal/log"
)

// RepairOptions says what is to be repaired. The zero value is the log.
type RepairOptions struct{}

// A RepairPlan says what is wrong with the log and what Run would do. Making it
// only reads.
type RepairPlan struct {
	repo *Repository
	plan *log.Repair
}

// PlanRepair finds out what a repository whose log is holed, damaged or rolled
// back has left, and how it becomes usable again. Nothing is deleted or
// replaced by it, so that a second look stays possible.
func (r *Repository) PlanRepair(ctx context.Context, _ RepairOptions) (*RepairPlan, error) {
	if err := r.readable(); err != nil {
		return nil, fmt.Errorf("plan repair: %w", err)
	}
	plan, err := r.log.PlanRepair(ctx)
	if err != nil {
		return nil, fmt.Errorf("plan repair: %w", err)
	}
	return &RepairPlan{repo: r, plan: plan}, nil
}

// String says what is wrong and what will be done, a line each.
func (p *RepairPlan) String() string { return p.plan.String() }

// Needed reports whether anything is wrong.
func (p *RepairPlan) Needed() bool { return p.plan.Problem != nil }

// Run makes the log usable again.
func (p *RepairPlan) Run(ctx context.Context) error {
	if p.repo.opts.ReadOnly {
		return fmt.Errorf("repair: the repository was opened for reading: %w", ErrReadOnly)
	}
	if err := p.plan.Run(ctx); err != nil {
		return fmt.Errorf("repair: %w", err)
	}
	return nil
}
