//go:build !linux

package peers

import (
	"context"
	"errors"
)

// memoryLimit is a limit to what a process may have in memory. The system has none that counts the page cache; a nil
// limit limits nothing.
type memoryLimit struct{}

func newMemoryLimit(context.Context, int64) (*memoryLimit, error) {
	return nil, errors.New("the system has no limit to memory that counts the page cache")
}

func (*memoryLimit) command() []string { return nil }
func (*memoryLimit) add(int) error     { return nil }
func (*memoryLimit) remove() error     { return nil }
