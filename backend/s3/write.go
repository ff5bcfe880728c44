package s3

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net/http"
	"slices"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sync/errgroup"

	"github.com/cairn-backup/cairn/backend"
)

var absent = "*" //nolint:gochecknoglobals // the value of If-None-Match, whose address the SDK takes

// Put implements backend.Backend.
func (b *Backend) Put(ctx context.Context, key backend.Key, data []byte) error {
	if err := key.Validate(); err != nil {
		return &backend.OpError{Op: "put", Key: key, Err: err}
	}
	// Nothing was sent yet.
	if err := backend.Ended(ctx); err != nil {
		return &backend.OpError{Op: "put", Key: key, Err: err}
	}
	if b.opts.Unconditional {
		switch _, err := b.Stat(ctx, key); {
		case err == nil:
			return &backend.OpError{Op: "put", Key: key, Kind: backend.ErrExist}
		case !errors.Is(err, backend.ErrNotExist):
			return &backend.OpError{Op: "put", Key: key, Err: err}
		}
	}
	if int64(len(data)) >= b.opts.Multipart {
		return b.putParts(ctx, key, data)
	}
	err := b.do(ctx, func(c *sdk.Client) error {
		_, err := c.PutObject(ctx, &sdk.PutObjectInput{
			Bucket: &b.opts.Bucket, Key: b.object(key), Body: bytes.NewReader(data), IfNoneMatch: b.condition(),
			ChecksumCRC32C: sum(data), ChecksumAlgorithm: types.ChecksumAlgorithmCrc32c,
			StorageClass: types.StorageClass(b.opts.StorageClass), ServerSideEncryption: types.ServerSideEncryption(b.opts.Encryption), SSEKMSKeyId: optional(b.opts.KMSKey),
		})
		return err
	})
	if err != nil {
		return b.failed(ctx, "put", key, err)
	}
	return nil
}

func (b *Backend) condition() *string {
	if b.opts.Unconditional {
		return nil
	}
	return &absent
}

// sum returns the CRC-32C as S3 writes it.
func sum(data []byte) *string {
	crc := crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))
	s := base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc))
	return &s
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// putParts uploads in parts. Nothing is visible before the completion, which
// carries the condition.
func (b *Backend) putParts(ctx context.Context, key backend.Key, data []byte) error {
	b.sweepOnce(ctx)
	var upload *sdk.CreateMultipartUploadOutput
	err := b.do(ctx, func(c *sdk.Client) (err error) {
		upload, err = c.CreateMultipartUpload(ctx, &sdk.CreateMultipartUploadInput{
			Bucket: &b.opts.Bucket, Key: b.object(key), ChecksumAlgorithm: types.ChecksumAlgorithmCrc32c,
			StorageClass: types.StorageClass(b.opts.StorageClass), ServerSideEncryption: types.ServerSideEncryption(b.opts.Encryption), SSEKMSKeyId: optional(b.opts.KMSKey),
		})
		return err
	})
	if err != nil {
		return harmless(b.failed(ctx, "put", key, err))
	}
	parts, err := b.sendParts(ctx, key, upload.UploadId, data)
	if err != nil {
		b.abort(ctx, key, upload.UploadId)
		return harmless(b.failed(ctx, "put", key, err))
	}
	err = b.do(ctx, func(c *sdk.Client) error {
		_, err := c.CompleteMultipartUpload(ctx, &sdk.CompleteMultipartUploadInput{
			Bucket: &b.opts.Bucket, Key: b.object(key), UploadId: upload.UploadId, IfNoneMatch: b.condition(),
			MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
		})
		return err
	})
	if err == nil {
		return nil
	}
	err = b.failed(ctx, "put", key, err)
	if !errors.Is(err, backend.ErrUnknownOutcome) {
		b.abort(ctx, key, upload.UploadId)
	}
	return err
}

// harmless is the error of a step before the completion, by which nothing was
// stored.
func harmless(err error) error {
	if op, ok := errors.AsType[*backend.OpError](err); ok && errors.Is(op.Kind, backend.ErrUnknownOutcome) {
		op.Kind = nil
		if _, ok := errors.AsType[*backend.TroubleError](op.Err); !ok && !errors.Is(op.Err, context.Canceled) && !errors.Is(op.Err, context.DeadlineExceeded) {
			op.Kind = backend.ErrUnavailable
		}
	}
	return err
}

func (b *Backend) sendParts(ctx context.Context, key backend.Key, id *string, data []byte) ([]types.CompletedPart, error) {
	// At most 10,000 parts.
	size := max(partSize, (len(data)+9_999)/10_000)
	pieces := slices.Collect(slices.Chunk(data, size))
	parts := make([]types.CompletedPart, len(pieces))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(partsAtOnce)
	for i, piece := range pieces {
		g.Go(func() error {
			number := int32(i + 1) //nolint:gosec // at most 10,000
			check := sum(piece)
			return b.do(ctx, func(c *sdk.Client) error {
				out, err := c.UploadPart(ctx, &sdk.UploadPartInput{
					Bucket: &b.opts.Bucket, Key: b.object(key), UploadId: id, PartNumber: &number,
					Body: bytes.NewReader(piece), ChecksumCRC32C: check, ChecksumAlgorithm: types.ChecksumAlgorithmCrc32c,
				})
				if err == nil {
					parts[i] = types.CompletedPart{ETag: out.ETag, PartNumber: &number, ChecksumCRC32C: check}
				}
				return err
			})
		})
	}
	return parts, g.Wait()
}

// aborting bounds the cleaning up after a failure.
const aborting = 10 * time.Second

// abort frees what was uploaded of an object. What it misses is swept later.
func (b *Backend) abort(ctx context.Context, key backend.Key, id *string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), aborting)
	defer cancel()
	_ = b.do(ctx, func(c *sdk.Client) error {
		_, err := c.AbortMultipartUpload(ctx, &sdk.AbortMultipartUploadInput{Bucket: &b.opts.Bucket, Key: b.object(key), UploadId: id})
		return err
	})
}

// sweepOnce gives up the uploads that somebody began long ago and never
// finished, which cost money and are seen by no listing of objects.
func (b *Backend) sweepOnce(ctx context.Context) {
	b.mu.Lock()
	done := b.swept
	b.swept = true
	b.mu.Unlock()
	if !done {
		_ = b.sweep(ctx, time.Now().Add(-staleUpload)) // who may not list them leaves them to a lifecycle rule
	}
}

// sweep aborts the uploads below the prefix that began before then.
func (b *Backend) sweep(ctx context.Context, then time.Time) error {
	in := &sdk.ListMultipartUploadsInput{Bucket: &b.opts.Bucket, Prefix: &b.prefix}
	for {
		var out *sdk.ListMultipartUploadsOutput
		err := b.do(ctx, func(c *sdk.Client) (err error) {
			out, err = c.ListMultipartUploads(ctx, in)
			return err
		})
		if err != nil {
			return b.failed(ctx, "list", "", err)
		}
		for _, u := range out.Uploads {
			key, ok := b.key(value(u.Key))
			if ok && u.Initiated != nil && u.Initiated.Before(then) {
				b.abort(ctx, key, u.UploadId)
			}
		}
		if !value(out.IsTruncated) || out.NextKeyMarker == nil {
			return nil
		}
		in.KeyMarker, in.UploadIdMarker = out.NextKeyMarker, out.NextUploadIdMarker
	}
}

// Delete implements backend.Backend.
func (b *Backend) Delete(ctx context.Context, key backend.Key) error {
	if err := key.Validate(); err != nil {
		return &backend.OpError{Op: "delete", Key: key, Err: err}
	}
	err := b.do(ctx, func(c *sdk.Client) error {
		_, err := c.DeleteObject(ctx, &sdk.DeleteObjectInput{Bucket: &b.opts.Bucket, Key: b.object(key)})
		return err
	})
	if err != nil {
		if err = b.failed(ctx, "delete", key, err); notThere(err) {
			return nil
		}
		return err
	}
	return nil
}

// notThere reports whether a Delete failed because the object is missing, and
// not the bucket.
func notThere(err error) bool {
	_, trouble := errors.AsType[*backend.TroubleError](err)
	return errors.Is(err, backend.ErrNotExist) && !trouble
}

// maxBatch is how many objects S3 deletes by one request.
const maxBatch = 1000

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
		if err := b.deleteBatch(ctx, batch); err != nil {
			return err
		}
	}
	return nil
}

func (b *Backend) deleteBatch(ctx context.Context, keys []backend.Key) error {
	objects := make([]types.ObjectIdentifier, len(keys))
	for i, key := range keys {
		objects[i].Key = b.object(key)
	}
	quiet := true
	var out *sdk.DeleteObjectsOutput
	err := b.do(ctx, func(c *sdk.Client) (err error) {
		out, err = c.DeleteObjects(ctx, &sdk.DeleteObjectsInput{Bucket: &b.opts.Bucket, Delete: &types.Delete{Objects: objects, Quiet: &quiet}})
		return err
	})
	if s := status(err); s == http.StatusNotImplemented || s == http.StatusMethodNotAllowed {
		return b.deleteEach(ctx, keys) // Google's, for one
	}
	if err != nil {
		return b.failed(ctx, "delete", "", err)
	}
	for _, e := range out.Errors {
		if c := value(e.Code); c == "NoSuchKey" {
			continue
		}
		key, _ := b.key(value(e.Key))
		return b.refused(key, e)
	}
	return nil
}

// refused gives the error of one object in a batch its meaning.
func (b *Backend) refused(key backend.Key, e types.Error) error {
	said := errors.New(value(e.Code) + ": " + value(e.Message))
	op := &backend.OpError{Op: "delete", Key: key, Err: said}
	switch value(e.Code) {
	case "AccessDenied":
		op.Err = &backend.TroubleError{Cause: backend.Denied, Advice: denied("delete") + "; or the object is locked until its retention ends", Err: said}
	case "SlowDown", "InternalError", "ServiceUnavailable":
		op.Err = &backend.TroubleError{Cause: backend.Throttled, Advice: "run it again later", Err: said}
	}
	return op
}

func (b *Backend) deleteEach(ctx context.Context, keys []backend.Key) error {
	for _, key := range keys {
		if err := b.Delete(ctx, key); err != nil {
			return err
		}
	}
	return nil
}
