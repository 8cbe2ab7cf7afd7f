package peers

import (
	"os"
	"strconv"
	"strings"
)

// residentMemory returns what this process has in memory, in bytes: anonymous, and of mapped files. 0 where the system
// does not tell.
func residentMemory() (anonymous, file int64) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		kib, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		switch name {
		case "RssAnon":
			anonymous = kib << 10
		case "RssFile", "RssShmem": // a file on tmpfs counts as the second
			file += kib << 10
		}
	}
	return anonymous, file
}
