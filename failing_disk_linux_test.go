package freyja

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// Disks that fail under a running store: the process lives, every error says what is the matter, and what
// was acknowledged is there when the disk is well again.

// remount mounts the file system of a store again that has failed, and opens the store.
func (s *fullStore) remount(image string) {
	s.t.Helper()
	unmount(s.t, s.disk)
	s.kind.mountAt(s.t, image, s.disk)
	s.open()
}

// storeOn is a store with some records on a new file system, the image of which is in a folder.
func storeOn(t *testing.T, kind diskKind, image string) *fullStore {
	s := &fullStore{t: t, kind: kind, disk: t.TempDir(), want: map[string][]byte{}}
	kind.mountAt(t, image, s.disk)
	s.open()
	t.Cleanup(func() { _ = s.db.Close() })
	for range 300 {
		require.True(t, s.put(1000))
	}
	return s
}

// checkFailed calls everything there is on a store whose disk has failed. Reads are right or an error.
func (s *fullStore) checkFailed() {
	t := s.t
	readable := 0
	for key, want := range s.want {
		value, err := s.db.Get([]byte(key))
		if err == nil {
			require.Equal(t, want, value)
			readable++
		}
	}
	require.Positive(t, readable, "what is in memory can be read")
	within(t, "calls on a failed disk", func() {
		_, _ = s.db.Compact(t.Context())
		_, _ = s.db.Verify(t.Context(), nil)
		_, _ = s.db.Backup(t.Context(), io.Discard)
		_ = s.db.Scan(nil, func(_, _ []byte) error { return nil })
		snap, err := s.db.Snapshot()
		if err == nil {
			_, _ = snap.Get([]byte("key-000001"))
			require.NoError(t, snap.Close())
		}
		require.Error(t, s.db.Sync())
		_ = s.db.Close()
	})
}

// failWrites writes until the store takes no more, and returns the first error.
func (s *fullStore) failWrites() (first error) {
	t := s.t
	for i := range 20_000 {
		key := "failing-" + string(crashValue("", i, 0))
		value := crashValue(key, i, 1000)
		err := s.db.Put([]byte(key), value)
		switch {
		case err == nil:
			s.want[key] = value
		case first == nil:
			first = err
		case errors.Is(err, ErrReadOnly):
			return first
		}
	}
	require.Fail(t, "the store goes on writing", "%v", first)
	return nil
}

// checkAcknowledged makes sure that all that was acknowledged is there; a write that failed may be.
func (s *fullStore) checkAcknowledged() {
	for key, want := range s.want {
		value, err := s.db.Get([]byte(key))
		require.NoError(s.t, err, key)
		require.Equal(s.t, want, value)
	}
	report, err := s.db.Verify(s.t.Context(), nil)
	require.NoError(s.t, err)
	require.Empty(s.t, report.Damages)
	require.NoError(s.t, s.db.Put([]byte("and"), []byte("writes")))
	require.NoError(s.t, s.db.Close())
}

// TestDiskGoesReadOnly: a file system that meets an error of its own ends all writing, under a running store.
func TestDiskGoesReadOnly(t *testing.T) {
	for _, kind := range journaledDisks {
		t.Run(kind.name, func(t *testing.T) {
			image := kind.image(t)
			s := storeOn(t, kind, image)
			if err := exec.Command("mount", "-o", "remount,abort", s.disk).Run(); err != nil {
				require.NoError(t, shutDown(s.disk))
			}
			err := s.failWrites()
			t.Logf("the first write that failed: %v", err)
			require.True(t, errors.Is(err, syscall.EIO) || errors.Is(err, syscall.EROFS) || errors.Is(err, ErrIO) ||
				errors.Is(err, syscall.EUCLEAN), "%v", err)
			s.checkFailed()
			_, err = Open(s.dir(), s.options())
			require.Error(t, err)
			s.remount(image)
			s.checkAcknowledged()
		})
	}
}

// TestSyncFails: a disk that does not take what it is given fails the sync, and that ends the store's writing.
func TestSyncFails(t *testing.T) {
	for _, kind := range journaledDisks {
		t.Run(kind.name, func(t *testing.T) {
			under := t.TempDir()
			mountOrSkip(t, "tmpfs", under, "tmpfs", "size=100m")
			made := kind.image(t)
			image := filepath.Join(under, "image")
			out, err := exec.Command("cp", "--sparse=always", made, image).CombinedOutput()
			require.NoError(t, err, "%s", out)
			s := storeOn(t, kind, image)
			ballast := filepath.Join(under, "ballast")
			fillDisk(t, ballast)
			err = s.failWrites()
			t.Logf("the first write that failed: %v", err)
			require.True(t, errors.Is(err, syscall.EIO) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EROFS) ||
				errors.Is(err, ErrIO), "%v", err)
			require.ErrorIs(t, s.db.Put([]byte("more"), nil), ErrReadOnly)
			s.checkFailed()
			require.NoError(t, os.Remove(ballast))
			s.remount(image)
			s.checkAcknowledged()
		})
	}
}

// TestFullCopyOnWriteDisk: where a store into reserved space may need new space, a full disk is an error of
// the write or of its sync all the same, and takes nothing that was acknowledged.
func TestFullCopyOnWriteDisk(t *testing.T) {
	s := newFullStore(t, btrfsDisk, 8<<20)
	defer func() { _ = s.db.Close() }()
	for size := 1000; size > 0; size /= 10 {
		for i := range 100_000 {
			key := string(crashValue("key", i, 0)) + string(crashValue("", size, 0))
			value := crashValue(key, i, size)
			err := s.db.Put([]byte(key), value)
			if err != nil {
				t.Logf("%d records of %d bytes: %v", i, size, err)
				require.True(t, errors.Is(err, syscall.ENOSPC) || errors.Is(err, ErrIO) || errors.Is(err, ErrReadOnly), "%v", err)
				break
			}
			s.want[key] = value
		}
	}
	for key, want := range s.want {
		value, err := s.db.Get([]byte(key))
		require.NoError(t, err)
		require.Equal(t, want, value)
	}
	_ = s.db.Close()
	require.NoError(t, os.Remove(filepath.Join(s.disk, "taken")))
	s.open()
	s.checkAcknowledged()
}
