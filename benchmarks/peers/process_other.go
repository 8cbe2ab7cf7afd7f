//go:build !linux

package peers

import "syscall"

// dieWithParent leaves it to the process: it ends when its input does.
func dieWithParent() *syscall.SysProcAttr { return nil }
