package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/chunk/codec"
	"github.com/cairn-backup/cairn/chunk/seal"
)

// kernelBlock is how much is compressed together, in bytes, as in a pack.
const kernelBlock = 1 << 20

// runKernel does one operation of the kernels: args are the operation, the
// directory that is backed up, the file of blocks, and the file to restore to.
func runKernel(ctx context.Context, args []string) error {
	if len(args) != 4 {
		return errors.New("kernel: give an operation, a directory and two files")
	}
	switch op(args[0]) {
	case opFirst:
		return kernelFirst(ctx, args[1], args[2])
	case opUnchanged:
		return kernelStat(ctx, args[1])
	case opRestore:
		return kernelRead(ctx, args[2], args[3])
	case opCheck:
		return kernelRead(ctx, args[2], "")
	case opInit, opChanged, opHistory, opDelete, opCollect:
	}
	return fmt.Errorf("kernel: no operation %q", args[0])
}

// A kernel has what all of them need. Its keys are zeros: nobody keeps the
// blocks.
type kernel struct {
	enc    *codec.Encoder
	dec    *codec.Decoder
	sealer *seal.Writer
	hash   *chunk.Hasher
	split  *chunk.Splitter

	known  map[chunk.ID]bool
	plain  []byte // of the open block
	ends   []int  // of its chunks
	packed []byte
	sealed []byte
	back   []byte
	out    *bufio.Writer
}

func newKernel() (*kernel, error) {
	k := &kernel{hash: chunk.NewHasher(chunk.Key{}), known: make(map[chunk.ID]bool)}
	pol, err := chunk.DerivePolynomial(chunk.Key{})
	if err != nil {
		return nil, err
	}
	var errs [4]error
	k.split, errs[0] = chunk.NewSplitter(pol, chunk.General())
	k.enc, errs[1] = codec.NewEncoder(codec.Fastest)
	k.dec, errs[2] = codec.NewDecoder()
	k.sealer, errs[3] = seal.NewWriter(seal.Key{}, seal.Template{Kind: seal.KindDataPack}, seal.Binding{})
	return k, errors.Join(errs[:]...)
}

// kernelFirst reads, splits, hashes, compresses and seals, and does all of it
// backwards to compare. The blocks go to a file, for kernelRead.
func kernelFirst(ctx context.Context, dir, blocks string) (err error) {
	k, err := newKernel()
	if err != nil {
		return err
	}
	f, err := os.Create(blocks)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(k.sealer.Header().Append(nil)); err != nil {
		return err
	}
	k.out = bufio.NewWriterSize(f, kernelBlock)
	err = walk(ctx, dir, func(path string, e os.DirEntry) error {
		if !e.Type().IsRegular() {
			return nil
		}
		return k.file(path)
	})
	return errors.Join(err, k.flush(), k.out.Flush())
}

func (k *kernel) file(path string) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	k.split.Reset(f)
	for {
		p, err := k.split.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if id := k.hash.Sum(p); k.known[id] {
			continue
		} else if k.known[id] = true; len(k.plain)+len(p) > kernelBlock {
			if err := k.flush(); err != nil {
				return err
			}
		}
		k.plain = append(k.plain, p...)
		k.ends = append(k.ends, len(k.plain))
	}
}

// flush ends the open block.
func (k *kernel) flush() (err error) {
	if len(k.plain) == 0 {
		return nil
	}
	k.packed = k.enc.Encode(k.packed[:0], k.plain)
	sealed, number, err := k.sealer.Part(k.sealed[:0], k.packed)
	if err != nil {
		return err
	}
	k.sealed = sealed
	if k.back, err = k.sealer.Check(k.back[:0], sealed, number, seal.More); err != nil {
		return err
	}
	plain, err := k.dec.Decode(k.packed[:0], k.back, len(k.plain))
	if err != nil {
		return err
	}
	head := binary.AppendUvarint(nil, uint64(len(k.ends)))
	begin := 0
	for _, end := range k.ends {
		if !k.known[k.hash.Sum(plain[begin:end])] {
			return errors.New("kernel: a chunk comes back as another one")
		}
		head = binary.AppendUvarint(head, uint64(end-begin)) //nolint:gosec // a length
		begin = end
	}
	head = binary.AppendUvarint(head, uint64(len(sealed)))
	k.packed, k.plain, k.ends = plain, k.plain[:0], k.ends[:0]
	_, err = k.out.Write(head) // a bufio.Writer keeps its error
	_, err2 := k.out.Write(sealed)
	return errors.Join(err, err2)
}

// kernelRead reads the blocks, opens, decompresses and hashes them, and writes
// what it has to the file out, unless that is "".
func kernelRead(ctx context.Context, blocks, out string) (err error) {
	f, err := os.Open(blocks)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	r := bufio.NewReaderSize(f, kernelBlock)
	start, err := r.Peek(seal.MaxHeader)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	h, n, err := seal.ParseHeader(start)
	if err != nil {
		return err
	}
	opener, err := seal.NewOpener(seal.Key{}, h, seal.Binding{})
	if err != nil {
		return err
	}
	if _, err := r.Discard(n); err != nil {
		return err
	}
	to := io.Discard
	if out != "" {
		file, err := os.Create(out)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		to = file
	}
	k := &kernel{hash: chunk.NewHasher(chunk.Key{})}
	if k.dec, err = codec.NewDecoder(); err != nil {
		return err
	}
	for number := uint64(0); ; number++ {
		err := k.block(r, opener, number, to)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err = errors.Join(err, ctx.Err()); err != nil {
			return err
		}
	}
}

// block reads one block. It returns io.EOF if there is none.
func (k *kernel) block(r *bufio.Reader, opener *seal.Opener, number uint64, to io.Writer) error {
	n, err := binary.ReadUvarint(r)
	if err != nil {
		return err
	}
	k.ends = k.ends[:0]
	end := 0
	for range n {
		length, err := binary.ReadUvarint(r)
		if err != nil {
			return err
		}
		end += int(length) //nolint:gosec // as kernelFirst wrote it
		k.ends = append(k.ends, end)
	}
	length, err := binary.ReadUvarint(r)
	if err != nil {
		return err
	}
	k.sealed = append(k.sealed[:0], make([]byte, length)...)
	if _, err := io.ReadFull(r, k.sealed); err != nil {
		return err
	}
	if k.packed, err = opener.Open(k.packed[:0], k.sealed, number, seal.More); err != nil {
		return err
	}
	if k.plain, err = k.dec.Decode(k.plain[:0], k.packed, end); err != nil {
		return err
	}
	begin := 0
	for _, end := range k.ends {
		k.hash.Sum(k.plain[begin:end])
		begin = end
	}
	_, err = to.Write(k.plain)
	return err
}

// kernelStat lists all directories and looks at everything in them, with as
// many workers as the machine has processors.
func kernelStat(ctx context.Context, dir string) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	var visit func(dir string) error
	visit = func(dir string) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		f, err := os.Open(dir)
		if err != nil {
			return err
		}
		entries, err := f.ReadDir(-1)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		for _, e := range entries {
			if _, err := e.Info(); err != nil {
				return err
			}
			if !e.IsDir() {
				continue
			}
			sub := filepath.Join(dir, e.Name())
			if g.TryGo(func() error { return visit(sub) }) {
				continue
			}
			if err := visit(sub); err != nil { // all workers are busy
				return err
			}
		}
		return nil
	}
	g.Go(func() error { return visit(dir) })
	return g.Wait()
}
