package engine

import (
	"context"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/engine/internal/store"
)

const (
	// nearRead bounds one read from a pack of a store that is near, in bytes.
	nearRead = 4 << 20
	// farRead bounds one from a store that is far, in bytes, which is more than a
	// pack has: requests are paid for, and a long one waits once. Large files are
	// in many packs.
	farRead = 32 << 20
	// readGap is how many unneeded bytes are read rather than asked around.
	readGap = 128 << 10
	// pieceSize bounds what a worker gets at a time, in bytes as stored, unless
	// one block has more.
	pieceSize = 1 << 20
	// pieceStep is of what the sizes of the buffers for pieces are multiples, in
	// bytes.
	pieceStep = 128 << 10
)

// A readJob is a range of a pack, which one request reads, and what is to be
// made of its blocks.
type readJob struct {
	refs []ref // sorted by place
	off  int64
	end  int64
	wait *sync.WaitGroup // released when all of it was handed on
}

// A piece is some blocks of a range: what a worker gets.
type piece struct {
	refs []ref
	off  int64 // in the pack
	end  int64
	buf  []byte
	err  error // why buf does not hold them
}

// fetchers returns how many requests for data wait at once, and whether the
// store is far: near, reading takes as long as what is done with the bytes.
func (x *restorer) fetchers() (n int, far bool) {
	if n = backend.Concurrency(x.repo.meter); n > 0 {
		return n, true
	}
	return x.repo.opts.Workers, false
}

// startFetching starts who reads. The buffers bound memory: each fetcher fills
// one while the workers have one each.
func (x *restorer) startFetching(ctx context.Context, g *errgroup.Group) {
	n, far := x.fetchers()
	if x.maxFiles = windowFiles; far {
		x.maxFiles = max(windowFiles, min(farWindowFiles, maxOpen()/4))
	}
	x.reads = make(chan readJob)
	x.idle = make(chan []byte, n+x.repo.opts.Workers)
	for range cap(x.idle) {
		x.idle <- nil
	}
	for range n {
		g.Go(func() error { return x.fetch(ctx) })
	}
}

// readSize bounds one read, in bytes.
func (x *restorer) readSize() int64 {
	if _, far := x.fetchers(); far {
		return farRead
	}
	return nearRead
}

// reads cuts sorted refs into reads of neighbouring blocks, of size bytes at the
// most.
func reads(refs []ref, size int64) []readJob {
	var jobs []readJob
	for i := 0; i < len(refs); {
		p := refs[i].place
		r := readJob{off: int64(p.Offset), end: int64(p.Offset) + int64(p.Stored)}
		j := i + 1
		for ; j < len(refs) && refs[j].place.Pack == p.Pack; j++ {
			if refs[j].place.Offset == refs[j-1].place.Offset {
				continue // the same block
			}
			off := int64(refs[j].place.Offset)
			end := off + int64(refs[j].place.Stored)
			if off < r.end || off > r.end+readGap || end > r.off+size {
				break
			}
			r.end = end
		}
		r.refs = refs[i:j]
		jobs = append(jobs, r)
		i = j
	}
	return jobs
}

// fetchAll reads ranges, and waits until the workers have written them.
func (x *restorer) fetchAll(ctx context.Context, jobs []readJob) error {
	var wait sync.WaitGroup
	for _, j := range jobs {
		j.wait = &wait
		wait.Add(1)
		select {
		case x.reads <- j:
			continue
		case <-ctx.Done():
			wait.Done()
		}
		break
	}
	wait.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// fetch reads ranges until there are no more.
func (x *restorer) fetch(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case j, ok := <-x.reads:
			if !ok {
				return nil
			}
			err := x.fetchRange(ctx, j)
			j.wait.Done()
			if err != nil {
				return err
			}
		}
	}
}

// fetchRange reads one range and hands its blocks to the workers as they arrive.
func (x *restorer) fetchRange(ctx context.Context, j readJob) error {
	s, err := x.repo.store.Stream(ctx, j.refs[0].place.Pack, j.off, j.end-j.off)
	if err == nil {
		defer s.Close()
	}
	for refs := j.refs; len(refs) > 0; {
		p := firstPiece(refs)
		refs = refs[len(p.refs):]
		select {
		case buf := <-x.idle:
			p.buf, p.err = fill(s, err, p, buf)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		err = p.err // what follows cannot be read either
		if err := x.send(ctx, j.wait, job{blocks: p}); err != nil {
			return err
		}
	}
	return nil
}

// firstPiece returns the first blocks of refs.
func firstPiece(refs []ref) *piece {
	off := int64(refs[0].place.Offset)
	p := &piece{off: off, end: off + int64(refs[0].place.Stored)}
	n := 1
	for ; n < len(refs); n++ {
		if refs[n].place.Offset == refs[n-1].place.Offset {
			continue // the same block
		}
		end := int64(refs[n].place.Offset) + int64(refs[n].place.Stored)
		if end > off+pieceSize {
			break
		}
		p.end = end
	}
	p.refs = refs[:n]
	return p
}

// fill reads the blocks of p into buf, which may be too small. It returns the
// buffer for them, and why they are not in it.
func fill(s *store.Stream, err error, p *piece, buf []byte) ([]byte, error) {
	if err != nil {
		return buf, err
	}
	n := int(p.end - p.off)
	if cap(buf) < n {
		// Rounded up, or each buffer is made anew for every piece that is longer
		// than those before, by some bytes.
		buf = make([]byte, (n+pieceStep-1)/pieceStep*pieceStep)
	}
	buf = buf[:n]
	return buf, s.Read(p.off, buf)
}

// writeBlocks opens blocks and writes their chunks.
func (x *restorer) writeBlocks(ctx context.Context, r *store.Reader, p *piece) error {
	defer func() { x.idle <- p.buf }() // it has room for all there are
	for refs := p.refs; len(refs) > 0; {
		at := refs[0].place
		n := 1
		for n < len(refs) && refs[n].place.Offset == at.Offset {
			n++
		}
		err := p.err
		var block []byte
		if err == nil {
			off := int64(at.Offset) - p.off
			block, err = x.repo.store.OpenBlock(ctx, r, at, p.buf[off:off+int64(at.Stored)])
		}
		if err := x.writeBlock(ctx, r, block, err, refs[:n]); err != nil {
			return err
		}
		refs = refs[n:]
	}
	return nil
}
