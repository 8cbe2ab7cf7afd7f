package peers

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// child is the process of an engine, seen from its parent. It is stopped, with all that it does in the background, except
// while it does a request. For one goroutine.
type child struct {
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	replies chan reply // closed when the child's output ends
	stderr  *tail
	gone    chan struct{} // closed when the process has ended and how is known
	ended   error         // how: immutable once gone is closed
}

// startChild starts this program again as a child. limit may be nil.
func startChild(ctx context.Context, limit *memoryLimit) (*child, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	command := append(limit.command(), program)
	c := &child{stderr: &tail{}, replies: make(chan reply, 1), gone: make(chan struct{})}
	c.cmd = exec.Command(command[0], command[1:]...)
	c.cmd.Env = append(os.Environ(), childEnv+"=1")
	c.cmd.Stderr = c.stderr
	c.cmd.SysProcAttr = dieWithParent()
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a child process: %w", err)
	}
	go c.read(stdout)
	if err := limit.add(c.cmd.Process.Pid); err != nil {
		c.kill()
		return nil, err
	}
	return c, nil
}

// read passes the replies on until the output ends, and then waits for the process.
func (c *child) read(stdout io.Reader) {
	lines := bufio.NewReader(stdout)
	for {
		line, err := lines.ReadString('\n')
		if text, ok := strings.CutPrefix(line, replyMark); ok {
			var r reply
			if err := json.Unmarshal([]byte(text), &r); err != nil {
				r.Error = fmt.Sprintf("bad reply: %v", err)
			}
			c.replies <- r
		}
		if err != nil {
			break
		}
	}
	close(c.replies)
	c.ended = c.cmd.Wait()
	close(c.gone)
}

// errTooLong is the end of a request that took longer than it may.
var errTooLong = errors.New("no answer in time")

// call makes a request and returns the reply. If there is none within the limit, or if ctx ends, the child is killed.
func (c *child) call(ctx context.Context, q request, limit time.Duration) (reply, error) {
	if err := c.send(q); err != nil {
		return reply{}, err
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case r, ok := <-c.replies:
		switch {
		case !ok:
			return reply{}, fmt.Errorf("%s: %w", q.Do, c.death())
		case r.Error != "":
			return reply{}, errors.New(r.Error)
		case q.Do == doOverwrite:
			return r, nil // goes on
		}
		return r, stopProcess(c.cmd.Process)
	case <-timer.C:
		c.kill()
		return reply{}, fmt.Errorf("%s: %w (%v)", q.Do, errTooLong, limit)
	case <-ctx.Done():
		c.kill()
		return reply{}, ctx.Err()
	}
}

func (c *child) send(q request) error {
	line, err := json.Marshal(q)
	if err != nil {
		return err
	}
	if err := continueProcess(c.cmd.Process); err != nil {
		return c.death()
	}
	if _, err := c.stdin.Write(append(line, '\n')); err != nil {
		return c.death()
	}
	return nil
}

// death says how a child ended whose output has ended.
func (c *child) death() error {
	c.kill()
	err := errors.New("the process ended")
	if c.ended != nil {
		err = fmt.Errorf("the process ended: %w", c.ended)
	}
	if said := c.stderr.String(); said != "" {
		err = fmt.Errorf("%w: it said %q", err, said)
	}
	return err
}

// closeLimit is how long a store may take to close.
const closeLimit = 2 * time.Minute

// close closes the store and ends the child, which is gone then, whatever is returned.
func (c *child) close(ctx context.Context) (reply, error) {
	r, err := c.call(ctx, request{Do: doClose}, closeLimit)
	if err != nil {
		c.kill()
		return r, err
	}
	_ = continueProcess(c.cmd.Process)
	_ = c.stdin.Close()
	select {
	case <-c.gone:
		return r, c.ended
	case <-time.After(closeLimit):
		c.kill()
		return r, fmt.Errorf("end of the process: %w", errTooLong)
	}
}

// kill ends the child by force and waits for that. A child that is gone already stays so.
func (c *child) kill() {
	_ = c.cmd.Process.Kill() // fails if it is gone
	_ = c.stdin.Close()
	for range c.replies { // one that nobody waits for
	}
	<-c.gone
}

// tailSize is how much of what a child says is kept, in bytes.
const tailSize = 2000

// tail keeps the last of what is written to it.
type tail struct {
	mu   sync.Mutex
	kept []byte // guarded by mu
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, b...)
	if extra := len(t.kept) - tailSize; extra > 0 {
		t.kept = append(t.kept[:0], t.kept[extra:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.kept))
}
