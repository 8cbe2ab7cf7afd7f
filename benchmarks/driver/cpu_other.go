//go:build !unix

package driver

import "time"

// ProcessorTime returns what the process has used so far, 0 where the system does not tell.
func ProcessorTime() time.Duration { return 0 }

// ChildrenTime returns what child processes that have ended had used, 0 where the system does not tell.
func ChildrenTime() time.Duration { return 0 }

// DiskReads returns how often the process has touched a mapped page that had to be read from disk, 0 where the system
// does not tell.
func DiskReads() int64 { return 0 }
