package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/pflag"

	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/manifest"
)

// scheduleFlags say when backups are made by themselves.
type scheduleFlags struct {
	every string
	keep  manifest.Policy

	interval time.Duration    // 0: never
	least    time.Duration    // of every; for tests another one
	collect  engine.GCOptions // for tests others than the default ones
}

func (f *scheduleFlags) add(fs *pflag.FlagSet) {
	f.least = minEvery
	fs.StringVar(&f.every, "every", "", "make a backup in every such `time`, such as 6h or 1d")
	p := &f.keep
	fs.Var((*keepCount)(&p.Last), "keep-last", "keep the newest `N` backups")
	fs.Var((*keepCount)(&p.Hourly), "keep-hourly", "keep the newest of each of the newest `N` hours that have one")
	fs.Var((*keepCount)(&p.Daily), "keep-daily", "keep the newest of each of the newest `N` days that have one")
	fs.Var((*keepCount)(&p.Weekly), "keep-weekly", "keep the newest of each of the newest `N` weeks that have one")
	fs.Var((*keepCount)(&p.Monthly), "keep-monthly", "keep the newest of each of the newest `N` months that have one")
	fs.Var((*keepCount)(&p.Yearly), "keep-yearly", "keep the newest of each of the newest `N` years that have one")
	fs.Var((*keepPeriod)(&p.Within), "keep-within", "keep all within this `TIME`")
}

// forgets reports whether there is a rule by which backups are forgotten.
func (f *scheduleFlags) forgets() bool { return f.keep.Validate() == nil }

// minEvery is the least time between two scheduled backups.
const minEvery = time.Minute

func (f *scheduleFlags) check() error {
	if f.every == "" {
		if f.forgets() {
			return usagef("the --keep flags belong to a schedule: give --every as well")
		}
		return nil
	}
	d, err := parseAge("--every", f.every)
	if err != nil {
		return err
	}
	if d < f.least {
		return usagef("--every is at least a minute")
	}
	f.interval = d
	return nil
}

// tryAgain is how long a schedule waits after a failure, at most.
const tryAgain = 5 * time.Minute

// schedule makes a backup whenever the newest of this machine is an interval
// old, until ctx is done: a server that is started again and again makes neither
// one each time nor none.
func (s serving) schedule(ctx context.Context) {
	interval := s.flags.schedule.interval
	if interval == 0 {
		return
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		wait, err := s.due(ctx)
		if err == nil && wait == 0 {
			err = s.round(ctx)
			wait = interval
		}
		if err != nil {
			wait = min(interval, tryAgain)
		}
		timer.Reset(wait)
	}
}

// due returns for how long the newest backup is new enough.
func (s serving) due(ctx context.Context) (time.Duration, error) {
	latest, err := s.server.Latest(ctx)
	if err != nil {
		return 0, err
	}
	interval := s.flags.schedule.interval
	return min(max(0, interval-time.Since(latest)), interval), nil // a clock may have been wrong
}

// round makes a backup, and, if that was stored, room for the next one. A step
// that failed is logged and counted, and ends the round: what is old is not
// dropped while nothing new comes.
func (s serving) round(ctx context.Context) error {
	for _, step := range []struct {
		name string
		do   func(ctx context.Context) error
	}{{"backup", s.backup}, {"forget", s.forget}, {"collect", s.collect}} {
		err := step.do(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		outcome := "done"
		if err != nil {
			outcome = "failed"
			s.logger.ErrorContext(ctx, "a step of the schedule failed", slog.String("step", step.name), slog.Any("error", err))
		}
		s.metrics.steps.WithLabelValues(step.name, outcome).Inc()
		if err != nil {
			return err
		}
	}
	return nil
}

// backup makes a backup.
func (s serving) backup(ctx context.Context) error {
	_, err := s.server.Create(ctx)
	return err
}

// forget forgets the backups of this machine that no rule keeps.
func (s serving) forget(ctx context.Context) error {
	if !s.flags.schedule.forgets() {
		return nil
	}
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	opts := engine.ForgetOptions{At: time.Now(), Filter: manifest.Filter{
		Kinds: []manifest.Kind{manifest.KindDatabase}, Names: []string{s.flags.name}, Hosts: []string{host},
	}}
	return s.repos.use(func(repo *engine.Repository) error {
		plan, err := repo.PlanForget(ctx, s.flags.schedule.keep, opts)
		if err != nil || plan.Empty() {
			return err
		}
		report, err := plan.Run(ctx)
		if errors.Is(err, engine.ErrPlanStale) {
			return nil // others were at it
		}
		if err == nil {
			s.logger.InfoContext(ctx, "old backups were forgotten", slog.Int("count", len(report.Forgotten)))
		}
		return err
	})
}

// collect deletes what no snapshot needs any more.
func (s serving) collect(ctx context.Context) error {
	return s.repos.use(func(repo *engine.Repository) error {
		plan, err := repo.PlanGC(ctx, s.flags.schedule.collect)
		if err != nil || plan.Empty() {
			return err
		}
		if _, err = plan.Run(ctx); errors.Is(err, engine.ErrPlanStale) {
			return nil // others were at it
		}
		return err
	})
}
