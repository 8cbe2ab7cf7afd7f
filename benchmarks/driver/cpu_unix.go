//go:build unix

package driver

import (
	"syscall"
	"time"
)

// ProcessorTime returns what the process has used so far, 0 where the system does not tell.
func ProcessorTime() time.Duration {
	return processorTime(syscall.RUSAGE_SELF)
}

// ChildrenTime returns what child processes that have ended had used, 0 where the system does not tell.
func ChildrenTime() time.Duration { return processorTime(syscall.RUSAGE_CHILDREN) }

func processorTime(who int) time.Duration {
	usage := resourceUsage(who)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// DiskReads returns how often the process has touched a mapped page that had to be read from disk, 0 where the system
// does not tell.
func DiskReads() int64 { return int64(resourceUsage(syscall.RUSAGE_SELF).Majflt) }

func resourceUsage(who int) syscall.Rusage {
	var usage syscall.Rusage
	_ = syscall.Getrusage(who, &usage) // cannot fail with these arguments
	return usage
}
