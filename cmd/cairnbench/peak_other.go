//go:build !unix

package main

import (
	"os"
	"time"
)

// peak returns 0: the system does not tell.
func peak(*os.ProcessState) int64 { return 0 }

// cpuTime returns 0: the system does not tell.
func cpuTime() time.Duration { return 0 }

// allocated returns the size of a file: the system does not tell what it takes.
func allocated(path string) (int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
