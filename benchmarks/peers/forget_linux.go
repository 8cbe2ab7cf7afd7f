//go:build linux && (amd64 || arm64)

package peers

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// forget lets the page cache forget all files of a folder, which no process may have mapped.
func forget(dir string) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		err = f.Sync() // pages that are not on disk cannot be dropped
		if err == nil {
			const dontNeed = 4 // POSIX_FADV_DONTNEED; offset and length 0: the whole file
			if _, _, errno := syscall.Syscall6(syscall.SYS_FADVISE64, f.Fd(), 0, 0, dontNeed, 0, 0); errno != 0 {
				err = fmt.Errorf("drop the page cache of %q: %w", path, errno)
			}
		}
		return errors.Join(err, f.Close())
	})
}
