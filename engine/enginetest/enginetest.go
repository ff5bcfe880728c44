// Package enginetest helps to test what is built on package engine: it makes
// trees with everything in them that a file system can hold, compares them by
// content and every piece of metadata, watches how a source is read, and takes
// a store apart and together again.
//
// It does not use what it tests: trees are made and compared by system calls,
// not by sources and targets.
package enginetest

import (
	"context"
	"errors"
	"fmt"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/engine"
)

// Whole checks a repository to its last byte and returns an error that lists
// what was found, or nil.
func Whole(ctx context.Context, r *engine.Repository) error {
	report, err := r.Check(ctx, engine.CheckOptions{Depth: engine.DepthData})
	errs := []error{err}
	for _, f := range report.Findings {
		errs = append(errs, fmt.Errorf("finding: object %q at %d: %s, hurts %v", f.Object, f.Offset, f.Detail, f.Items))
	}
	return errors.Join(errs...)
}

// maxObject bounds the objects that Objects reads, in bytes.
const maxObject = 1 << 30

// Objects reads every object of a store.
func Objects(ctx context.Context, b backend.Backend) (map[backend.Key][]byte, error) {
	objects := make(map[backend.Key][]byte)
	for info, err := range b.List(ctx, "") {
		if err != nil {
			return nil, err
		}
		object, err := backend.ReadAll(ctx, b, info.Key, maxObject)
		if err != nil {
			return nil, err
		}
		objects[info.Key] = object
	}
	return objects, nil
}

// Store returns a store in memory that holds exactly objects.
func Store(ctx context.Context, objects map[backend.Key][]byte) (*mem.Backend, error) {
	b := mem.New()
	for key, object := range objects {
		if err := b.Put(ctx, key, object); err != nil {
			return nil, err
		}
	}
	return b, nil
}
