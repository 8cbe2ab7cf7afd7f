//go:build !linux

package adapters

// mapMemory returns size zeroed bytes.
func mapMemory(size int, _ bool) ([]byte, error) { return make([]byte, size), nil }

func unmapMemory([]byte) error { return nil }
