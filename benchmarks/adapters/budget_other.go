//go:build !linux

package adapters

// memoryBytes is unknown.
func memoryBytes() int64 { return 0 }
