//go:build !unix

package peers

import "os"

// stopProcess does nothing: the system cannot.
func stopProcess(*os.Process) error { return nil }

func continueProcess(*os.Process) error { return nil }
