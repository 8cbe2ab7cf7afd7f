package life

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/freyjadb/freyja"
	"github.com/freyjadb/freyja/benchmarks/report"
	"github.com/freyjadb/freyja/benchmarks/workload"
)

// backups times backups to nowhere and to a file, and restores from it.
func (l *life) backups(ctx context.Context) (err error) {
	s, err := l.filled(ctx, "backup", freyja.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.remove()) }()
	live := s.db.Usage().LiveBytes
	nowhere := report.Transfer{What: "Backup to nowhere", LiveBytes: live}
	file := report.Transfer{What: "Backup to a file", LiveBytes: live}
	restore := report.Transfer{What: "Restore from it", LiveBytes: live}
	for round := range l.Rounds {
		l.Progress("backup: round %d of %d", round+1, l.Rounds)
		if err := s.backup(ctx, io.Discard, &nowhere); err != nil {
			return err
		}
		if err := l.backupAndRestore(ctx, s, &file, &restore); err != nil {
			return err
		}
	}
	l.out.Transfers = append(l.out.Transfers, nowhere, file, restore)
	return nil
}

// backupAndRestore makes a backup file, restores a store from it, checks that, and removes both.
func (l *life) backupAndRestore(ctx context.Context, s *store, file, restore *report.Transfer) (err error) {
	path := filepath.Join(l.Dir, "backup-file")
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(path)) }()
	if err := s.backup(ctx, f, file); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return l.restore(ctx, f, file.Bytes, restore)
}

// backup makes a backup and adds that to t as a round.
func (s *store) backup(ctx context.Context, w io.Writer, t *report.Transfer) error {
	counted := &countingWriter{w: w}
	start := time.Now()
	info, err := s.db.Backup(ctx, counted)
	took := time.Since(start)
	if err != nil {
		return err
	}
	if keys := s.db.Len(); info.Keys != int64(keys) || info.Bytes != counted.n {
		return fmt.Errorf("backup says it has %d keys in %d bytes; it is %d bytes long, of a store with %d keys",
			info.Keys, info.Bytes, counted.n, keys)
	}
	t.Bytes = counted.n
	t.Seconds = append(t.Seconds, took.Seconds())
	return nil
}

// restore restores a store from the bytes of r, adds that to t as a round, and removes the store.
func (l *life) restore(ctx context.Context, r io.Reader, bytes int64, t *report.Transfer) (err error) {
	dir := filepath.Join(l.Dir, "restored")
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	opts := freyja.Options{Durability: l.Durability}
	start := time.Now()
	err = freyja.Restore(ctx, r, dir, &opts)
	took := time.Since(start)
	if err != nil {
		return err
	}
	t.Bytes = bytes
	t.Seconds = append(t.Seconds, took.Seconds())
	return l.verifyIn(dir, opts)
}

// verifyIn checks the store in dir, which is not open.
func (l *life) verifyIn(dir string, opts freyja.Options) error {
	data, err := l.data(workload.Uniform)
	if err != nil {
		return err
	}
	s, err := openStore(dir, opts)
	if err != nil {
		return err
	}
	return errors.Join(s.verify(data), s.db.Close())
}

// countingWriter counts what goes through it.
type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
