package azure

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"iter"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"golang.org/x/sync/errgroup"

	"github.com/cairn-backup/cairn/backend"
)

const (
	// blockSize is the size of a staged block, in bytes; blocksAtOnce what is in
	// flight beside the object itself, which the caller holds.
	blockSize    = 16 << 20
	blocksAtOnce = 4
	// maxBatch is how many blobs one request deletes.
	maxBatch = 256
)

// body makes bytes a body that can be sent. Closing it does nothing.
type body struct{ *bytes.Reader }

func (body) Close() error { return nil }

func newBody(data []byte) io.ReadSeekCloser { return body{bytes.NewReader(data)} }

func absent() *blob.AccessConditions {
	any := azcore.ETagAny
	return &blob.AccessConditions{ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfNoneMatch: &any}}
}

func (b *Backend) tier() *blob.AccessTier {
	if b.opts.Tier == "" {
		return nil
	}
	t := blob.AccessTier(b.opts.Tier)
	return &t
}

// Put implements backend.Backend.
func (b *Backend) Put(ctx context.Context, key backend.Key, data []byte) error {
	if err := key.Validate(); err != nil {
		return &backend.OpError{Op: "put", Key: key, Err: err}
	}
	// Nothing was sent yet.
	if err := backend.Ended(ctx); err != nil {
		return &backend.OpError{Op: "put", Key: key, Err: err}
	}
	if int64(len(data)) >= b.opts.Blocks {
		return b.putBlocks(ctx, key, data)
	}
	err := b.do(ctx, func(c *container.Client) error {
		_, err := c.NewBlockBlobClient(b.blob(key)).Upload(ctx, newBody(data), &blockblob.UploadOptions{
			AccessConditions: absent(), Tier: b.tier(), TransactionalValidation: blob.TransferValidationTypeComputeCRC64(),
		})
		return err
	})
	if err != nil {
		return b.failed(ctx, "put", key, err)
	}
	return nil
}

// putBlocks stages blocks, which nobody sees and which Azure drops after a week,
// and commits their list under the condition.
func (b *Backend) putBlocks(ctx context.Context, key backend.Key, data []byte) error {
	size := max(blockSize, (len(data)+49_999)/50_000)
	pieces := slices.Collect(slices.Chunk(data, size))
	ids := make([]string, len(pieces))
	// Staged blocks belong to the blob's name, not to who staged them: with names
	// that others use, too, a winner's list would take in a loser's bytes.
	var run [16]byte
	_, _ = rand.Read(run[:]) // never fails
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(blocksAtOnce)
	for i, piece := range pieces {
		// All of one length, as Azure wants it.
		ids[i] = base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint64(slices.Clone(run[:]), uint64(i))) //nolint:gosec // an index
		g.Go(func() error {
			return b.do(gctx, func(c *container.Client) error {
				_, err := c.NewBlockBlobClient(b.blob(key)).StageBlock(gctx, ids[i], newBody(piece), &blockblob.StageBlockOptions{
					TransactionalValidation: blob.TransferValidationTypeComputeCRC64(),
				})
				return err
			})
		})
	}
	if err := g.Wait(); err != nil {
		return harmless(b.failed(ctx, "put", key, err))
	}
	err := b.do(ctx, func(c *container.Client) error {
		_, err := c.NewBlockBlobClient(b.blob(key)).CommitBlockList(ctx, ids, &blockblob.CommitBlockListOptions{AccessConditions: absent(), Tier: b.tier()})
		return err
	})
	if err != nil {
		return b.failed(ctx, "put", key, err)
	}
	return nil
}

// harmless is the error of a step before the commit, by which nothing was
// stored.
func harmless(err error) error {
	if op, ok := errors.AsType[*backend.OpError](err); ok && errors.Is(op.Kind, backend.ErrUnknownOutcome) {
		op.Kind = nil
	}
	return err
}

// Delete implements backend.Backend.
func (b *Backend) Delete(ctx context.Context, key backend.Key) error {
	if err := key.Validate(); err != nil {
		return &backend.OpError{Op: "delete", Key: key, Err: err}
	}
	err := b.do(ctx, func(c *container.Client) error {
		_, err := c.NewBlobClient(b.blob(key)).Delete(ctx, nil)
		return err
	})
	return b.deleted(ctx, key, err)
}

// deleted turns the error of a deletion into ours: none if nothing was there.
func (b *Backend) deleted(ctx context.Context, key backend.Key, err error) error {
	if err == nil {
		return nil
	}
	err = b.failed(ctx, "delete", key, err)
	if _, trouble := errors.AsType[*backend.TroubleError](err); errors.Is(err, backend.ErrNotExist) && !trouble {
		return nil
	}
	return err
}

// DeleteAll implements backend.BatchDeleter.
func (b *Backend) DeleteAll(ctx context.Context, keys []backend.Key) error {
	for _, key := range keys {
		if err := key.Validate(); err != nil {
			return &backend.OpError{Op: "delete", Key: key, Err: err}
		}
	}
	if err := backend.Ended(ctx); err != nil {
		return &backend.OpError{Op: "delete", Err: err}
	}
	for batch := range slices.Chunk(keys, maxBatch) {
		if len(batch) == 1 {
			if err := b.Delete(ctx, batch[0]); err != nil {
				return err
			}
			continue
		}
		if err := b.deleteBatch(ctx, batch); err != nil {
			return err
		}
	}
	return nil
}

func (b *Backend) deleteBatch(ctx context.Context, keys []backend.Key) error {
	var got container.SubmitBatchResponse
	err := b.do(ctx, func(c *container.Client) error {
		batch, err := c.NewBatchBuilder()
		if err != nil {
			return err
		}
		for _, key := range keys {
			if err := batch.Delete(b.blob(key), nil); err != nil {
				return err
			}
		}
		got, err = c.SubmitBatch(ctx, batch, nil)
		return err
	})
	if err != nil {
		return b.failed(ctx, "delete", "", err)
	}
	if len(got.Responses) != len(keys) {
		return &backend.OpError{Op: "delete", Kind: backend.ErrUnavailable, Err: errors.New("the store answered for a part of a batch")}
	}
	for _, r := range got.Responses {
		if r == nil {
			continue
		}
		key, _ := b.key(strings.TrimPrefix(value(r.BlobName), "/"))
		if err := b.deleted(ctx, key, r.Error); err != nil {
			return err
		}
	}
	return nil
}

// key returns the key of a blob of the container, if it is one of ours.
func (b *Backend) key(name string) (backend.Key, bool) {
	rest, ok := strings.CutPrefix(name, b.prefix)
	key := backend.Key(rest)
	return key, ok && key.Validate() == nil
}

// List implements backend.Backend. Blobs that no backend.Key can name are passed
// over: they are somebody else's.
func (b *Backend) List(ctx context.Context, prefix backend.Key) iter.Seq2[backend.Info, error] {
	return func(yield func(backend.Info, error) bool) {
		fail := func(err error) { yield(backend.Info{}, err) }
		if err := prefix.ValidatePrefix(); err != nil {
			fail(&backend.OpError{Op: "list", Key: prefix, Err: err})
			return
		}
		var marker *string
		name := b.blob(prefix)
		for {
			var page container.ListBlobsFlatResponse
			err := b.do(ctx, func(c *container.Client) (err error) {
				page, err = c.NewListBlobsFlatPager(&container.ListBlobsFlatOptions{Prefix: &name, Marker: marker}).NextPage(ctx)
				return err
			})
			if err != nil {
				fail(b.failed(ctx, "list", prefix, err))
				return
			}
			if page.Segment == nil {
				return
			}
			for _, item := range page.Segment.BlobItems {
				key, ok := b.key(value(item.Name))
				if !ok || item.Properties == nil {
					continue
				}
				if !yield(backend.Info{Key: key, Size: value(item.Properties.ContentLength), Modified: value(item.Properties.LastModified)}, nil) {
					return
				}
			}
			if marker = page.NextMarker; value(marker) == "" {
				return
			}
		}
	}
}
