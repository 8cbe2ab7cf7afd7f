//go:build unix

package peers

import (
	"os"
	"syscall"
)

// stopProcess stops a process, with all that it does in the background, until continueProcess.
func stopProcess(p *os.Process) error { return p.Signal(syscall.SIGSTOP) }

func continueProcess(p *os.Process) error { return p.Signal(syscall.SIGCONT) }
