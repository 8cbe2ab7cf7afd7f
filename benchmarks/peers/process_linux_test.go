package peers

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/benchmarks/adapters"
	"github.com/freyjadb/freyja/benchmarks/report"
)

// state returns the letter of a process's state, "" if there is none.
func state(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	_, after, _ := strings.Cut(string(text), ") ")
	return after[:1]
}

// TestChildIsStopped except while it does what it is asked.
func TestChildIsStopped(t *testing.T) {
	c := openChild(t, withFiles)
	stopped := func() bool { return state(c.cmd.Process.Pid) == "T" }
	require.Eventually(t, stopped, 5*time.Second, time.Millisecond)
	require.NoError(t, c.send(longRun))
	require.Eventually(t, func() bool { return !stopped() }, 5*time.Second, time.Millisecond)
}

// TestChildDiesWithItsParent: even if both know nothing of it, and the child is stopped.
func TestChildDiesWithItsParent(t *testing.T) {
	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), parentEnv+"="+t.TempDir())
	stdout, err := parent.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, parent.Start())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	require.NoError(t, err, line)
	require.Eventually(t, func() bool { return state(pid) == "T" }, 5*time.Second, time.Millisecond)
	require.NoError(t, parent.Process.Kill())
	require.Error(t, parent.Wait())
	require.Eventually(t, func() bool { return state(pid) == "" || state(pid) == "Z" }, 10*time.Second, 10*time.Millisecond)
}

func TestResidentMemory(t *testing.T) {
	debug.FreeOSMemory() // what other tests left must not go meanwhile
	before, file := residentMemory()
	require.Positive(t, before)
	require.Positive(t, file)
	const size = 64 << 20
	b := make([]byte, size)
	for i := 0; i < size; i += 4096 {
		b[i] = 1
	}
	after, _ := residentMemory()
	require.Greater(t, after, before+size*3/4)
	require.Equal(t, byte(1), b[0])
}

func TestMemoryLimit(t *testing.T) {
	const bytes = 64 << 20
	limit, err := newMemoryLimit(context.Background(), bytes)
	if err != nil {
		t.Skip(err)
	}
	c, err := startChild(context.Background(), limit)
	require.NoError(t, err)
	in, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", c.cmd.Process.Pid))
	require.NoError(t, err)
	if limit.group != "" {
		require.Contains(t, string(in), filepath.Base(limit.group))
		require.Error(t, os.Remove(limit.group), "in use")
	}
	c.kill()
	require.NoError(t, limit.remove())
	if limit.group != "" {
		require.NoDirExists(t, limit.group)
	}
	require.NoError(t, limit.remove(), "once more")
}

// TestScope: where systemd makes none, a limit says why and leaves nothing.
func TestScope(t *testing.T) {
	limit, err := newScope(64 << 20)
	require.NoError(t, err)
	require.Contains(t, limit.command(), "MemoryMax=67108864")
	if err := limit.try(context.Background()); err != nil {
		require.ErrorContains(t, err, "the process ended")
		t.Skip(err)
	}
}

func TestOwnGroup(t *testing.T) {
	for _, c := range []struct{ text, folder, file string }{
		{"0::/no/such\n", controlGroups, "memory.max"},
		{"12:cpu,cpuacct:/x\n4:memory:/no/such\n0::/x\n", controlGroups + "/memory", "memory.limit_in_bytes"},
		{"0::/x\n4:memory:/no/such\n", controlGroups + "/memory", "memory.limit_in_bytes"},
	} {
		folder, file, err := ownGroup(c.text)
		require.NoError(t, err)
		require.Equal(t, c.folder, folder)
		require.Equal(t, c.file, file)
	}
	_, _, err := ownGroup("3:cpuset:/\n")
	require.ErrorContains(t, err, "no control group")
}

// TestColdIsSkippedInMemory: a folder that is memory itself cannot be dropped from it, and the run says so.
func TestColdIsSkippedInMemory(t *testing.T) {
	if report.ThisMachine("/dev/shm").FileSystem != "tmpfs" {
		t.Skip("/dev/shm is not there")
	}
	var said []string
	c := testConfig(t, &said, withFiles, adapters.SyncMap)
	dir, err := os.MkdirTemp("/dev/shm", "freyja-")
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	c.Dir, c.Only = dir, []string{"cold-read", "scan"}
	var out report.Peers
	require.NoError(t, Run(context.Background(), c, &out))
	require.Contains(t, said, "cold-read is skipped: the stores' folder is on tmpfs, which is memory itself")
	require.Len(t, out.Workloads, 1)
}

// TestColdIsSkippedWithoutPermission: nobody may limit memory, and the run says so.
func TestColdIsSkippedWithoutPermission(t *testing.T) {
	defer func(folder string) { controlGroups = folder }(controlGroups)
	controlGroups = filepath.Join(t.TempDir(), "none")
	t.Setenv("PATH", "")
	var said []string
	c := testConfig(t, &said, withFiles, adapters.SyncMap)
	c.Only = []string{"cold-read", "scan"}
	var out report.Peers
	require.NoError(t, Run(context.Background(), c, &out))
	require.Contains(t, strings.Join(said, "\n"), "cold-read is skipped: ")
	require.Len(t, out.Workloads, 1)
	requireEmpty(t, c.Dir)
}
