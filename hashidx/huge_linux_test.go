package hashidx

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestHugePages: where the kernel grants huge pages on request, a large table is made of them.
func TestHugePages(t *testing.T) {
	mode, err := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled")
	if err != nil || bytes.Contains(mode, []byte("[never]")) {
		t.Skip("the kernel grants no huge pages")
	}
	x, err := New(400_000)
	require.NoError(t, err)
	for id := range uint64(400_000) {
		insert(t, x, id)
	}
	base := uintptr(x.Table().base)
	require.Zero(t, base%hugePage)

	smaps, err := os.ReadFile("/proc/self/smaps")
	require.NoError(t, err)
	inside, huge := false, 0
	for line := range strings.Lines(string(smaps)) {
		var from, to uintptr
		if n, _ := fmt.Sscanf(line, "%x-%x ", &from, &to); n == 2 {
			inside = from <= base && base < to
		}
		if kilobytes := 0; inside {
			if n, _ := fmt.Sscanf(line, "AnonHugePages: %d kB", &kilobytes); n == 1 {
				huge = kilobytes << 10
			}
		}
	}
	if huge == 0 {
		t.Skip("the kernel had no huge page to give")
	}
	t.Logf("%d of %d bytes in huge pages", huge, x.Bytes())
	require.GreaterOrEqual(t, int64(huge), x.Bytes()/2)
}
