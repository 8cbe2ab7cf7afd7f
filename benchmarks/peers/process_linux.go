package peers

import "syscall"

// dieWithParent lets the kernel kill a process when the thread that starts it ends, which is when this process does: Go
// keeps its threads.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
