package s3

import (
	"context"
	"errors"
	"fmt"
	"strings"

	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/cairn-backup/cairn/backend"
)

// Inspect implements backend.Inspector: it looks at the bucket's lifecycle rules
// and at its versioning. What this user may not see is left out.
func (b *Backend) Inspect(ctx context.Context) ([]*backend.TroubleError, error) {
	var found []*backend.TroubleError
	var rules *sdk.GetBucketLifecycleConfigurationOutput
	err := b.do(ctx, func(c *sdk.Client) (err error) {
		rules, err = c.GetBucketLifecycleConfiguration(ctx, &sdk.GetBucketLifecycleConfigurationInput{Bucket: &b.opts.Bucket})
		return err
	})
	if err := b.seen(ctx, err); err != nil {
		return nil, err
	}
	cleans := false // old versions
	if rules != nil {
		for _, r := range rules.Rules {
			cleans = cleans || r.NoncurrentVersionExpiration != nil && b.covers(r)
			if t := b.judge(r); t != nil {
				found = append(found, t)
			}
		}
	}
	var versions *sdk.GetBucketVersioningOutput
	err = b.do(ctx, func(c *sdk.Client) (err error) {
		versions, err = c.GetBucketVersioning(ctx, &sdk.GetBucketVersioningInput{Bucket: &b.opts.Bucket})
		return err
	})
	if err := b.seen(ctx, err); err != nil {
		return nil, err
	}
	if versions != nil && versions.Status == types.BucketVersioningStatusEnabled && !cleans {
		found = append(found, &backend.TroubleError{
			Cause: backend.Misconfigured, Err: errors.New("the bucket keeps old versions"),
			Advice: "what is deleted goes on costing money as an old version: add a lifecycle rule that ends noncurrent versions after some days",
		})
	}
	return found, nil
}

// seen lets only errors through that are about more than this question.
func (b *Backend) seen(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if status(err) != 0 && code(err) != "NoSuchBucket" && ctx.Err() == nil {
		return nil
	}
	return b.failed(ctx, "inspect", "", err)
}

// covers reports whether a rule holds for some of our objects.
func (b *Backend) covers(r types.LifecycleRule) bool {
	if r.Status != types.ExpirationStatusEnabled {
		return false
	}
	p := value(r.Prefix) //nolint:staticcheck // old rules have it there
	if f := r.Filter; f != nil {
		if f.Tag != nil || f.And != nil && len(f.And.Tags) > 0 {
			return false // our objects have no tags
		}
		p += value(f.Prefix)
		if f.And != nil {
			p += value(f.And.Prefix)
		}
	}
	return strings.HasPrefix(p, b.prefix) || strings.HasPrefix(b.prefix, p)
}

// judge returns what a lifecycle rule would do to a repository.
func (b *Backend) judge(r types.LifecycleRule) *backend.TroubleError {
	if !b.covers(r) {
		return nil
	}
	t := &backend.TroubleError{Cause: backend.Misconfigured}
	if e := r.Expiration; e != nil && (e.Days != nil || e.Date != nil) {
		t.Err = fmt.Errorf("the lifecycle rule %q deletes objects of the repository", value(r.ID))
		t.Advice = "except this prefix from the rule: it would destroy backups; cairn's own retention deletes what is not needed any more"
		return t
	}
	for _, tr := range r.Transitions {
		switch tr.StorageClass {
		case types.TransitionStorageClassGlacier, types.TransitionStorageClassDeepArchive:
			t.Err = fmt.Errorf("the lifecycle rule %q moves objects of the repository to cold storage", value(r.ID))
			t.Advice = "except this prefix from the rule: what was moved can be neither restored nor checked"
			return t
		default:
		}
	}
	return nil
}
