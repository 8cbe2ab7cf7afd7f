//go:build unix && !linux && !darwin

package mmapio

import (
	"errors"
	"os"
)

const poisonFlags = 0

// diskReserve has no call of its own here: zeros are written.
func diskReserve(*os.File, int64, int64) error { return errors.ErrUnsupported }

func diskPopulate(pages []byte) (int64, error) { return int64(len(pages)), nil }

func diskPopulateRead([]byte) error { return nil }
