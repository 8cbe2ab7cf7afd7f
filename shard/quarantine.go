package shard

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/freyjadb/freyja/mmapio"
)

// quarantineDir is where recovery keeps what it cuts, below the store's folder.
func quarantineDir(dir string) string { return filepath.Join(dir, "quarantine") }

// quarantine keeps bytes that recovery is about to cut, under name or, if that is taken, name and
// a number: a recovery that was killed may have kept more of them than are left now. They are on
// disk when it returns, with the path of the file.
func (c *Config) quarantine(name string, b []byte) (path string, err error) {
	return Quarantine(c.Dir, name, b)
}

// Quarantine keeps bytes that are about to be cut from the store in storeDir, as quarantine does.
func Quarantine(storeDir, name string, b []byte) (path string, err error) {
	dir := quarantineDir(storeDir)
	if err := mmapio.MakeFolder(dir, 0o755); err != nil {
		return "", fmt.Errorf("keep what recovery cuts: %w", err)
	}
	path = freeName(filepath.Join(dir, name))
	if err := mmapio.WriteFileAtomic(path, b); err != nil {
		return "", fmt.Errorf("keep what recovery cuts: %w", err)
	}
	if err := mmapio.SyncDir(storeDir); err != nil {
		return "", fmt.Errorf("keep what recovery cuts: %w", err)
	}
	return path, nil
}

// QuarantineSize is the length of the files that the quarantine of the store in a folder has. What cannot be looked at
// is not in it: nothing depends on it.
func QuarantineSize(storeDir string) (n int64) {
	entries, _ := os.ReadDir(quarantineDir(storeDir))
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			n += info.Size()
		}
	}
	return n
}

// freeName returns path, or path with a number behind it, such that no file has the name.
func freeName(path string) string {
	name := path
	for i := 2; ; i++ {
		if _, err := os.Lstat(name); err != nil {
			return name
		}
		name = fmt.Sprintf("%s.%d", path, i)
	}
}

// DropOrphan deals with a segment file that the manifest does not list: one whose creation a crash
// cut short, or whose removal. Without records it is removed, and so is what compaction made or had
// taken out: the manifest changes from the old segments to the new one at once, so those that it
// lists have all there is. Any other with records is kept in the quarantine and removed. A file that
// is not of this store is left alone: both results are then empty.
func (c *Config) DropOrphan(id uint64) (removed string, cut *Cut, err error) {
	path := c.segmentPath(id)
	h := c.header(id)
	b, err := readOrphan(path, &h)
	if err != nil || b == nil {
		return "", nil, err
	}
	used := usedBytes(b)
	if used > 0 && h.read(b, path) != nil {
		return "", nil, nil
	}
	if used > headerSize && !c.superseded(&h, b) {
		kept, err := c.quarantine(filepath.Base(path), b[:used])
		if err != nil {
			return "", nil, err
		}
		cut = &Cut{Shard: c.Shard, File: path, Offset: headerSize, Bytes: used - headerSize,
			Reason: "the manifest does not list the segment", Quarantine: kept}
	} else {
		removed = path
	}
	if err := mmapio.Remove(path); err != nil {
		return "", nil, fmt.Errorf("remove segment: %w", err)
	}
	return removed, cut, nil
}

// readOrphan reads a file that may be a segment, as a whole if it begins like one or with zeros and is no
// larger than one; else it returns nil, as for a file that may not be read.
func readOrphan(path string, h *segmentHeader) ([]byte, error) {
	file, err := mmapio.OpenForReading(path)
	if errors.Is(err, os.ErrPermission) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read segment: %w", err)
	}
	defer file.Close()
	page := make([]byte, headerSize)
	n, err := io.ReadFull(file, page)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return page[:n], nil
	}
	if err == nil && usedBytes(page) > 0 && h.read(page, path) != nil {
		return nil, nil
	}
	rest := []byte(nil)
	if err == nil {
		rest, err = io.ReadAll(io.LimitReader(file, maxSegmentFile-headerSize+1))
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("read segment: %w", err)
	case headerSize+int64(len(rest)) > maxSegmentFile:
		return nil, nil
	}
	return append(page, rest...), nil
}

// superseded reports whether an unlisted segment is one that a compaction made, whose inputs are still
// listed if it is not, or one of the log that went into a compaction.
func (c *Config) superseded(h *segmentHeader, b []byte) bool {
	m := latestMark(b)
	return h.origin == originCompacted || m.state != stateOpen && m.lastSeq <= c.Listed.Floor
}
