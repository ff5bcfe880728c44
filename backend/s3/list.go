package s3

import (
	"context"
	"errors"
	"iter"
	"strings"

	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/cairn-backup/cairn/backend"
)

// key returns the key of an object of the bucket, if it is one of ours.
func (b *Backend) key(object string) (backend.Key, bool) {
	rest, ok := strings.CutPrefix(object, b.prefix)
	key := backend.Key(rest)
	return key, ok && key.Validate() == nil
}

// List implements backend.Backend. Objects that no backend.Key can name are
// passed over: they are somebody else's.
func (b *Backend) List(ctx context.Context, prefix backend.Key) iter.Seq2[backend.Info, error] {
	return func(yield func(backend.Info, error) bool) {
		fail := func(err error) { yield(backend.Info{}, err) }
		if err := prefix.ValidatePrefix(); err != nil {
			fail(&backend.OpError{Op: "list", Key: prefix, Err: err})
			return
		}
		in := &sdk.ListObjectsV2Input{Bucket: &b.opts.Bucket, Prefix: b.object(prefix)}
		var last string
		for {
			var out *sdk.ListObjectsV2Output
			err := b.do(ctx, func(c *sdk.Client) (err error) {
				out, err = c.ListObjectsV2(ctx, in)
				return err
			})
			if err != nil {
				fail(b.failed(ctx, "list", prefix, err))
				return
			}
			for _, o := range out.Contents {
				name := value(o.Key)
				if name <= last && last != "" {
					fail(&backend.OpError{Op: "list", Key: prefix, Err: unordered(name, last)})
					return
				}
				last = name
				if !b.yield(yield, o) {
					return
				}
			}
			if !value(out.IsTruncated) || out.NextContinuationToken == nil {
				return
			}
			in.ContinuationToken = out.NextContinuationToken
		}
	}
}

func (b *Backend) yield(yield func(backend.Info, error) bool, o types.Object) bool {
	key, ok := b.key(value(o.Key))
	if !ok {
		return true
	}
	info := backend.Info{Key: key, Size: value(o.Size)}
	if o.LastModified != nil {
		info.Modified = *o.LastModified
	}
	return yield(info, nil)
}

func unordered(name, last string) error {
	return &backend.TroubleError{
		Cause: backend.Misconfigured, Advice: "take a general purpose bucket: directory buckets and this store do not list in order",
		Err: errors.New(name + " is listed behind " + last),
	}
}
