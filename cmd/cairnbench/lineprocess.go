package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// lineArg makes this program a line, until its standard input ends.
const lineArg = "line"

// A lineProcess is a line in a process of its own. What is under way on a line
// without a window is hundreds of megabytes, which this program must not hold:
// they would count as the peak of every process that it starts (see execute).
type lineProcess struct {
	addr  string
	cmd   *exec.Cmd
	stdin io.Closer
}

// startLine starts a line to the server at that address. close ends it.
func startLine(ctx context.Context, server string, latency time.Duration, window int64) (*lineProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &lineProcess{cmd: exec.CommandContext(ctx, self, lineArg, server, latency.String(), strconv.FormatInt(window, 10))}
	p.cmd.Stderr = os.Stderr
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		p.close()
		return nil, fmt.Errorf("start a line: %w", err)
	}
	p.addr = strings.TrimSpace(addr)
	return p, nil
}

func (p *lineProcess) close() {
	_ = p.stdin.Close() // it ends then
	_ = p.cmd.Wait()    // nothing is under way that anyone waits for
}

// runLine is a line until standard input ends.
func runLine(ctx context.Context, args []string, stdin io.Reader, stdout io.Writer) error {
	if len(args) != 3 {
		return fmt.Errorf("%s takes a server, a latency and a window", lineArg)
	}
	latency, err := time.ParseDuration(args[1])
	window, err2 := strconv.ParseInt(args[2], 10, 64)
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	l, err := newLine(ctx, args[0], latency, window)
	if err != nil {
		return err
	}
	defer l.close()
	if _, err := fmt.Fprintln(stdout, l.addr()); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, stdin)
	return err
}
