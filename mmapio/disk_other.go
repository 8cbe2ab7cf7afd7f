//go:build unix && !linux && !darwin

package mmapio

import (
	"errors"
	"os"
)

const (
	poisonFlags     = 0
	populateDirties = false
)

// sysReserve has no call of its own here: zeros are written.
func sysReserve(*os.File, int64, int64) error { return errors.ErrUnsupported }

func sysPopulate(pages []byte) (int64, error) { return int64(len(pages)), nil }

func sysPopulateRead([]byte) error { return nil }

// sysSyncData: the system has nothing that syncs less than all.
func sysSyncData(file *os.File) error { return file.Sync() }

// sysDiskWaits: what reads from the disk cost here has not been measured.
func sysDiskWaits() (faults, blocks int64, ok bool) { return 0, 0, false }

func sysReadRandomly(*os.File) error { return nil }

// endsStores: not measured here.
const endsStores = false
