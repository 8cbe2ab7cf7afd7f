package mmapio

import (
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// On a read-only medium a shared lock is to be had, with the file or without; an exclusive one is not.
func TestLockOnReadOnlyMedium(t *testing.T) {
	medium := smallMedium(t, folder(t), 1<<20, 0)
	there := filepath.Join(medium, "there")
	l, err := Lock(there, true)
	require.NoError(t, err)
	require.NoError(t, l.Unlock())
	require.NoError(t, unix.Mount("", medium, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))

	for _, path := range []string{there, filepath.Join(medium, "missing")} {
		l, err := Lock(path, false)
		require.NoError(t, err)
		require.Equal(t, path == there, l.file != nil, "held only where there is something to hold")
		require.NoError(t, l.Unlock())
		_, err = Lock(path, true)
		require.ErrorIs(t, err, syscall.EROFS)
	}
}
