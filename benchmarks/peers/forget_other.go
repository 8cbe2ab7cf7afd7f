//go:build !linux || !(amd64 || arm64)

package peers

import "errors"

// forget cannot be done here.
func forget(string) error { return errors.New("the system cannot drop a file's page cache") }
