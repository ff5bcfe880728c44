package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
)

// copier is cp -a: what it costs to copy everything, without anything else.
type copier struct{ program }

func (c copier) commands(_ context.Context, j job) ([]*exec.Cmd, error) {
	copied := filepath.Join(j.repo(), tag(j.number))
	switch j.op {
	case opFirst, opChanged:
		return one(c.run(j.data, nil, "-a", ".", copied)), nil
	case opRestore:
		return one(c.run(j.data, nil, "-a", copied+"/.", j.restored())), nil
	case opInit, opUnchanged, opHistory, opDelete, opCollect, opCheck:
	}
	return nil, nil
}

// isFloor returns whether a tool is no backup program.
func isFloor(t tool) bool {
	switch t.(type) {
	case copier, tarrer, kernels:
		return true
	}
	return false
}

// tarrer is tar, compressed by zstd at its default level.
type tarrer struct{ program }

func (t tarrer) commands(_ context.Context, j job) ([]*exec.Cmd, error) {
	archive := filepath.Join(j.repo(), tag(j.number)+".tar.zst")
	switch j.op {
	case opFirst, opChanged:
		// The format of POSIX has the time of a file to the nanosecond.
		return one(t.run(j.data, nil, "-I", "zstd", "--format=posix", "-Scf", archive, ".")), nil
	case opRestore:
		return one(t.run(j.data, nil, "-I", "zstd", "-C", j.restored(), "-xpf", archive)), nil
	case opCheck:
		return one(t.run(j.data, nil, "-I", "zstd", "-tf", archive)), nil
	case opInit, opUnchanged, opHistory, opDelete, opCollect:
	}
	return nil, nil
}

// kernels is this program, doing what a backup cannot do without and nothing
// else. It keeps its blocks in one file.
type kernels struct{ program }

func findKernels() (tool, error) {
	path, err := os.Executable()
	return kernels{program{label: "kernels", path: path, says: "read, split, BLAKE3, zstd, AES-GCM, and back; a parallel lstat"}}, err
}

// kernelArg makes this program do one operation of the kernels.
const kernelArg = "kernel"

func (k kernels) commands(_ context.Context, j job) ([]*exec.Cmd, error) {
	switch j.op {
	case opFirst, opUnchanged, opRestore, opCheck:
		blocks := filepath.Join(j.repo(), "blocks")
		out := filepath.Join(j.restored(), "data")
		return one(k.run(j.data, nil, kernelArg, string(j.op), j.data, blocks, out)), nil
	case opInit, opChanged, opHistory, opDelete, opCollect:
	}
	return nil, nil
}
