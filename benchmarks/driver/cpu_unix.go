//go:build unix

package driver

import (
	"syscall"
	"time"
)

// ProcessorTime returns what the process has used so far, 0 where the system does not tell.
func ProcessorTime() time.Duration {
	usage := resourceUsage()
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// DiskReads returns how often the process has touched a mapped page that had to be read from disk, 0 where the system
// does not tell.
func DiskReads() int64 { return int64(resourceUsage().Majflt) }

func resourceUsage() syscall.Rusage {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage) // cannot fail with these arguments
	return usage
}
