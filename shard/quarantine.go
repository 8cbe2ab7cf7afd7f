package shard

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/freyjadb/freyja/mmapio"
)

// quarantineName is the folder, in the store's, where recovery keeps what it cuts.
const quarantineName = "quarantine"

// quarantine keeps bytes that recovery is about to cut, under name or, if that is taken, name and
// a number: a recovery that was killed may have kept more of them than are left now. They are on
// disk when it returns, with the path of the file.
func (c *Config) quarantine(name string, b []byte) (path string, err error) {
	return Quarantine(c.Folder, name, b)
}

// Quarantine keeps bytes that are about to be cut from the store in a folder, as quarantine does.
func Quarantine(store *mmapio.Folder, name string, b []byte) (path string, err error) {
	if path, err = keep(store, name, b); err != nil {
		return "", fmt.Errorf("keep what recovery cuts: %w", err)
	}
	return path, nil
}

// keep makes a file in the quarantine, and that if there is none.
func keep(store *mmapio.Folder, name string, b []byte) (path string, err error) {
	quarantine, err := store.MakeSub(quarantineName)
	if err != nil {
		return "", err
	}
	defer quarantine.Close()
	name = freeName(quarantine, name)
	if err := quarantine.WriteFileAtomic(name, b); err != nil {
		return "", err
	}
	return quarantine.PathOf(name), store.Sync() // the name of the quarantine
}

// QuarantineSize is the length of the files that the quarantine of the store in a folder has. What cannot be looked at
// is not in it: nothing depends on it.
func QuarantineSize(store *mmapio.Folder) (n int64) {
	quarantine, err := store.OpenSub(quarantineName)
	if err != nil {
		return 0
	}
	defer quarantine.Close()
	entries, _ := quarantine.List()
	for _, e := range entries {
		if info, err := quarantine.Lstat(e.Name()); err == nil && info.Mode().IsRegular() {
			n += info.Size()
		}
	}
	return n
}

// freeName returns name, or name with a number behind it, such that no file in the folder has it.
func freeName(folder *mmapio.Folder, name string) string {
	free := name
	for i := 2; ; i++ {
		if _, err := folder.Lstat(free); err != nil {
			return free
		}
		free = fmt.Sprintf("%s.%d", name, i)
	}
}

// DropOrphan deals with a segment file that the manifest does not list: one whose creation a crash
// cut short, or whose removal. Without records it is removed, and so is what compaction made or had
// taken out: the manifest changes from the old segments to the new one at once, so those that it
// lists have all there is. Any other with records is kept in the quarantine and removed. A file that
// is not of this store is left alone: both results are then empty.
func (c *Config) DropOrphan(id uint64) (removed string, cut *Cut, err error) {
	name := c.segmentName(id)
	path := c.Folder.PathOf(name)
	h := c.header(id)
	b, err := readOrphan(c.Folder, name, &h)
	if err != nil || b == nil {
		return "", nil, err
	}
	used := usedBytes(b)
	if used > 0 && h.read(b, path) != nil {
		return "", nil, nil
	}
	if used > headerSize && !c.superseded(&h, b) {
		kept, err := c.quarantine(name, b[:used])
		if err != nil {
			return "", nil, err
		}
		cut = &Cut{Shard: c.Shard, File: path, Offset: headerSize, Bytes: used - headerSize,
			Reason: "the manifest does not list the segment", Quarantine: kept}
	} else {
		removed = path
	}
	if err := c.Folder.Remove(name); err != nil {
		return "", nil, fmt.Errorf("remove segment: %w", err)
	}
	return removed, cut, nil
}

// readOrphan reads a file that may be a segment, as a whole if it begins like one or with zeros and is no
// larger than one; else it returns nil, as for a file that may not be read.
func readOrphan(folder *mmapio.Folder, name string, h *segmentHeader) ([]byte, error) {
	file, err := folder.OpenForReading(name)
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
	if err == nil && usedBytes(page) > 0 && h.read(page, file.Name()) != nil {
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
