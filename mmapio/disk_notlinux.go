//go:build !linux

package mmapio

import (
	"errors"
	"os"
)

// What is in memory is not asked here, so that nothing is ever given back.

func sysResident(data, pages []byte) error { return errors.ErrUnsupported }

func sysUnload([]byte) error { return errors.ErrUnsupported }

func sysForget(*os.File, int64, int64) error { return errors.ErrUnsupported }

// sysLacksSpace does not know.
func sysLacksSpace(*os.File) error { return nil }

// sysCommit does nothing.
func sysCommit(*os.File) error { return nil }
