package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/spf13/pflag"

	"github.com/cairn-backup/cairn/engine"
)

// scheduleFlags say when backups are made by themselves.
type scheduleFlags struct {
	every string

	interval time.Duration // 0: never
}

func (f *scheduleFlags) add(fs *pflag.FlagSet) {
	fs.StringVar(&f.every, "every", "", "make a backup in every such `time`, such as 6h or 1d")
}

// minEvery is the least time between two scheduled backups.
const minEvery = time.Minute

func (f *scheduleFlags) check() error {
	if f.every == "" {
		return nil
	}
	d, err := parseAge("--every", f.every)
	if err != nil {
		return err
	}
	if d < minEvery {
		return usagef("--every is at least a minute")
	}
	f.interval = d
	return nil
}

// schedule makes backups until ctx is done. The first one comes after one
// interval, counted from the start: a server that is started again and again
// makes none each time.
func (s serving) schedule(ctx context.Context) {
	interval := s.flags.schedule.interval
	if interval == 0 {
		return
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			s.round(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// round makes a backup, and, if that was stored, room for the next one. A step
// that failed is logged, counted and tried again by the next round.
func (s serving) round(ctx context.Context) {
	for _, step := range []struct {
		name string
		do   func(ctx context.Context, repo *engine.Repository) error
	}{{"backup", s.backup}, {"collect", collectUnneeded}} {
		err := step.do(ctx, s.repos.current())
		if ctx.Err() != nil {
			return
		}
		outcome := "done"
		if err != nil {
			outcome = "failed"
			s.logger.ErrorContext(ctx, "a step of the schedule failed", slog.String("step", step.name), slog.Any("error", err))
		}
		s.metrics.collection.WithLabelValues(step.name, outcome).Inc()
		if err != nil {
			return // what is old is not dropped while nothing new comes
		}
	}
}

// backup makes a backup. While the data are restored it waits.
func (s serving) backup(ctx context.Context, _ *engine.Repository) error {
	_, err := s.server.Create(ctx)
	return err
}

// collectUnneeded deletes what no snapshot needs any more.
func collectUnneeded(ctx context.Context, repo *engine.Repository) error {
	plan, err := repo.PlanGC(ctx, engine.GCOptions{})
	if err != nil || plan.Empty() {
		return err
	}
	if _, err = plan.Run(ctx); errors.Is(err, engine.ErrPlanStale) {
		return nil // others were at it
	}
	return err
}
