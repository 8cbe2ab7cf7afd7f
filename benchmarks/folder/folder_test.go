package folder

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func write(t *testing.T, dir, name string, size int) {
	t.Helper()
	path := filepath.Join(dir, name)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, make([]byte, size), 0o644))
}

func TestMeasure(t *testing.T) {
	dir := t.TempDir()
	size, err := Measure(dir)
	require.NoError(t, err)
	require.Equal(t, Size{Files: map[string]int64{}}, size)

	write(t, dir, "MANIFEST", 100)
	write(t, dir, "000-00000001.seg", 300_000)
	write(t, dir, filepath.Join("quarantine", "cut"), 7)
	size, err = Measure(dir)
	require.NoError(t, err)
	require.Equal(t, int64(300_107), size.Length)
	require.GreaterOrEqual(t, size.Blocks, size.Length)
	require.Equal(t, map[string]int64{"MANIFEST": 100, "000-00000001.seg": 300_000, filepath.Join("quarantine", "cut"): 7}, size.Files)
	require.Empty(t, size.Removed(size))

	require.NoError(t, os.Remove(filepath.Join(dir, "MANIFEST")))
	write(t, dir, "new", 1)
	after, err := Measure(dir)
	require.NoError(t, err)
	require.Equal(t, []string{"MANIFEST"}, after.Removed(size))

	_, err = Measure(filepath.Join(dir, "missing"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

// TestMeasureAsDu: blocks are what du says, of sparse files too.
func TestMeasureAsDu(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("du -B1 is that of GNU")
	}
	dir := t.TempDir()
	write(t, dir, "full", 50_000)
	f, err := os.Create(filepath.Join(dir, "sparse"))
	require.NoError(t, err)
	require.NoError(t, f.Truncate(10<<20))
	require.NoError(t, f.Close())
	size, err := Measure(dir)
	require.NoError(t, err)
	require.Equal(t, int64(50_000+10<<20), size.Length)

	out, err := exec.Command("du", "-B1", filepath.Join(dir, "full"), filepath.Join(dir, "sparse")).Output()
	if err != nil {
		t.Skipf("du: %v", err)
	}
	var sum int64
	for line := range strings.Lines(string(out)) {
		n, err := strconv.ParseInt(strings.Fields(line)[0], 10, 64)
		require.NoError(t, err)
		sum += n
	}
	require.Equal(t, sum, size.Blocks)
}

// TestMeasureWhileFilesGo is what a compaction does to the walk.
func TestMeasureWhileFilesGo(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "stays", 5)
	var churn sync.WaitGroup
	stop := make(chan struct{})
	churn.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				path := filepath.Join(dir, fmt.Sprint("goes", i%20))
				_ = os.WriteFile(path, []byte("x"), 0o644)
				_ = os.Remove(path)
			}
		}
	})
	for range 200 {
		size, err := Measure(dir)
		require.NoError(t, err)
		require.Equal(t, int64(5), size.Files["stays"])
	}
	close(stop)
	churn.Wait()
}
