package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/freyjadb/freyja"
)

// backups is a folder of backups of a store. One backup is made at a time.
type backups struct {
	db     *freyja.DB
	folder string
	keep   int
	clock  clock
	check  func(restored *freyja.DB) error // says whether the restored store makes sense to the application
	log    *slog.Logger
}

// backupName is in UTC and of fixed width, so that the order of names is that of time.
const backupName = "store-20060102T150405.000000000Z.backup"

// make makes a backup, as the package comment says, and returns its path.
func (b *backups) make(ctx context.Context) (path string, err error) {
	if err := os.MkdirAll(b.folder, 0o700); err != nil {
		return "", err
	}
	if err := b.removeLeftovers(); err != nil {
		return "", err
	}
	path = filepath.Join(b.folder, b.clock.Now().UTC().Format(backupName))
	tmp := path + ".tmp"
	info, err := b.write(ctx, tmp)
	if err == nil {
		err = b.verify(ctx, tmp, info)
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return "", errors.Join(err, removeIfThere(tmp))
	}
	if err := syncFolder(b.folder); err != nil {
		return "", err
	}
	b.log.Info("backup made", "path", path, "keys", info.Keys, "bytes", info.Bytes, "took", info.Duration)
	return path, b.prune()
}

// write writes the store to a new file and puts it on disk.
func (b *backups) write(ctx context.Context, path string) (info freyja.BackupInfo, err error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return info, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if info, err = b.db.Backup(ctx, file); err != nil {
		return info, err
	}
	return info, file.Sync()
}

// verify restores the backup at path into a fresh folder, and looks through what came out.
func (b *backups) verify(ctx context.Context, path string, info freyja.BackupInfo) (err error) {
	// Beside the backups: it takes about as much space as the store, which /tmp may not have.
	fresh, err := os.MkdirTemp(b.folder, "restored-")
	if err != nil {
		return err
	}
	defer func() {
		if err := os.RemoveAll(fresh); err != nil { // Windows keeps mapped files for a moment; the next backup removes them
			b.log.Warn("restored store left behind", "dir", fresh, "error", err)
		}
	}()
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close() // only read
	if err := freyja.Restore(ctx, file, fresh, nil); err != nil {
		return err
	}
	restored, err := freyja.Open(fresh, &freyja.Options{ReadOnly: true, Logger: b.log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, restored.Close()) }()
	// Fewer is right, too, where keys expire: those that have by now are not restored.
	if n := int64(restored.Len()); n > info.Keys {
		return fmt.Errorf("%d keys were restored from a backup of %d", n, info.Keys)
	}
	report, err := restored.Verify(ctx, nil)
	if err != nil {
		return err
	}
	for _, damage := range report.Damages {
		err = errors.Join(err, fmt.Errorf("restored store is damaged: %q at %d: %s", damage.File, damage.Offset, damage.Reason))
	}
	if err != nil {
		return err
	}
	return b.check(restored)
}

// list returns the paths of all backups, the oldest first.
func (b *backups) list() ([]string, error) {
	paths, err := filepath.Glob(filepath.Join(b.folder, "store-*.backup"))
	slices.Sort(paths)
	return paths, err
}

// prune removes all backups but the newest ones.
func (b *backups) prune() error {
	paths, err := b.list()
	if err != nil || len(paths) <= b.keep {
		return err
	}
	for _, path := range paths[:len(paths)-b.keep] {
		if err := os.Remove(path); err != nil {
			return err
		}
		b.log.Info("old backup removed", "path", path)
	}
	return nil
}

// removeLeftovers removes what a backup that did not come to its end has left.
func (b *backups) removeLeftovers() error {
	for _, pattern := range []string{"store-*.backup.tmp", "restored-*"} {
		paths, err := filepath.Glob(filepath.Join(b.folder, pattern))
		if err != nil {
			return err
		}
		for _, path := range paths {
			if err := os.RemoveAll(path); err != nil {
				return err
			}
		}
	}
	return nil
}

func removeIfThere(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// syncFolder puts the names in a folder on disk. Windows does so by itself and cannot be asked to.
func syncFolder(path string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	folder, err := os.Open(path)
	if err != nil {
		return err
	}
	defer folder.Close() // only read
	return folder.Sync()
}
