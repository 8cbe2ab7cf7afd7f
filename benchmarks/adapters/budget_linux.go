package adapters

import (
	"os"
	"strconv"
	"strings"
	"syscall"
)

// memoryBytes returns how much memory the process can have: the machine's, or the limit of its control group if that
// is lower.
func memoryBytes() int64 {
	var info syscall.Sysinfo_t
	if syscall.Sysinfo(&info) != nil {
		return 0
	}
	memory := int64(info.Totalram) * int64(info.Unit)
	for _, path := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if limit, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil { // "max" is no number
			memory = min(memory, limit)
		}
	}
	return memory
}
