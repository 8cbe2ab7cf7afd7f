package peers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// memoryLimit is a limit to what a process may have in memory, page cache included: a control group of its own below
// this process's, or a scope of systemd's where only that may make one. A nil limit limits nothing.
type memoryLimit struct {
	group string // folder of the control group; empty: a scope
	scope []string
}

// controlGroups is where Linux shows them. Tests move it.
var controlGroups = "/sys/fs/cgroup"

// newMemoryLimit returns a limit of so many bytes, under which a child has been started, or why there can be none.
func newMemoryLimit(ctx context.Context, bytes int64) (*memoryLimit, error) {
	var errs []error
	for _, create := range []func(int64) (*memoryLimit, error){newGroup, newScope} {
		limit, err := create(bytes)
		if err == nil {
			err = limit.try(ctx)
		}
		if err == nil {
			return limit, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("a limit to memory is not permitted: %w; %w", errs[0], errs[1])
}

// try starts a child under the limit and ends it. If that fails, it removes the limit.
func (m *memoryLimit) try(ctx context.Context) error {
	const patience = 10 * time.Second
	c, err := startChild(ctx, m)
	if err == nil {
		_, err = c.call(ctx, request{Do: doHello}, patience)
		c.kill()
	}
	if err != nil {
		err = errors.Join(err, m.remove())
	}
	return err
}

// newGroup makes a control group.
func newGroup(bytes int64) (*memoryLimit, error) {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	parent, limitFile, err := ownGroup(string(own))
	if err != nil {
		return nil, err
	}
	m := &memoryLimit{group: filepath.Join(parent, fmt.Sprintf("freyja-bench-%d-%d", os.Getpid(), time.Now().UnixNano()))}
	if err := os.Mkdir(m.group, 0o755); err != nil {
		return nil, err
	}
	if err := m.set(limitFile, bytes); err != nil {
		return nil, errors.Join(err, m.remove())
	}
	// Without swap where the group may say so: what is swapped out is not what is measured.
	_ = m.set("memory.swappiness", 0)
	_ = m.set("memory.swap.max", 0)
	return m, nil
}

// ownGroup finds, in the text of /proc/self/cgroup, the folder of the group that this process's memory is counted in, and
// the name of the file that limits a group.
//
//	4:memory:/path      version 1
//	0::/path            version 2
func ownGroup(text string) (folder, limitFile string, err error) {
	path, mount := "", ""
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case len(f) < 3:
		case f[1] == "memory":
			path, mount, limitFile = f[2], filepath.Join(controlGroups, "memory"), "memory.limit_in_bytes"
		case f[1] == "" && limitFile == "":
			path, mount, limitFile = f[2], controlGroups, "memory.max"
		}
	}
	if limitFile == "" {
		return "", "", errors.New("the system has no control group for memory")
	}
	folder = filepath.Join(mount, path)
	if _, err := os.Stat(folder); errors.Is(err, fs.ErrNotExist) {
		folder = mount // in a container, whose own group is mounted as the root
	}
	return folder, limitFile, nil
}

func (m *memoryLimit) set(name string, value int64) error {
	// Not created: a folder of another file system would take the file and limit nothing.
	f, err := os.OpenFile(filepath.Join(m.group, name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(strconv.FormatInt(value, 10))
	return errors.Join(err, f.Close())
}

// newScope returns a limit by systemd.
func newScope(bytes int64) (*memoryLimit, error) {
	scope := []string{"systemd-run", "--scope", "--quiet", "--collect", "-p", fmt.Sprint("MemoryMax=", bytes), "-p", "MemorySwapMax=0"}
	if os.Getuid() != 0 {
		scope = append(scope, "--user")
	}
	return &memoryLimit{scope: append(scope, "--")}, nil
}

// command is what a command begins with that is to be limited.
func (m *memoryLimit) command() []string {
	if m == nil {
		return nil
	}
	return append([]string{}, m.scope...)
}

// add moves a process that has been started with command into the group.
func (m *memoryLimit) add(pid int) error {
	if m == nil || m.group == "" {
		return nil
	}
	return m.set("cgroup.procs", int64(pid))
}

// remove removes the group. All its processes must be gone.
func (m *memoryLimit) remove() error {
	if m == nil || m.group == "" {
		return nil
	}
	const tries, wait = 100, 20 * time.Millisecond // until the kernel has let go of the last process
	var err error
	for range tries {
		if err = os.Remove(m.group); err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		time.Sleep(wait)
	}
	return err
}
