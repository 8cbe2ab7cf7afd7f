package shard

import (
	"errors"
	"fmt"
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
	return keep(store, name, func(quarantine *mmapio.Folder, name string) error {
		return quarantine.WriteFileAtomic(name, b)
	})
}

// quarantineFile is Quarantine for the first length bytes of a file.
func quarantineFile(store *mmapio.Folder, name string, file *os.File, length int64) (path string, err error) {
	return keep(store, name, func(quarantine *mmapio.Folder, name string) error {
		return quarantine.CopyAtomic(name, file, length)
	})
}

// keep has write make a file in the quarantine, and makes that if there is none.
func keep(store *mmapio.Folder, name string, write func(quarantine *mmapio.Folder, name string) error) (path string, err error) {
	defer func() {
		if err != nil {
			path, err = "", fmt.Errorf("keep what recovery cuts: %w", err)
		}
	}()
	quarantine, err := store.MakeSub(quarantineName)
	if err != nil {
		return "", err
	}
	defer quarantine.Close()
	name = freeName(quarantine, name)
	if err := write(quarantine, name); err != nil {
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
	file, err := c.Folder.OpenForReading(name)
	if errors.Is(err, os.ErrPermission) {
		return "", nil, nil
	}
	if err != nil {
		return "", nil, fmt.Errorf("read segment: %w", err)
	}
	page, used, err := readOrphan(file, &h)
	if err == nil && used > headerSize && !c.superseded(&h, page) {
		cut = &Cut{Shard: c.Shard, File: path, Offset: headerSize, Bytes: used - headerSize, Reason: "the manifest does not list the segment"}
		cut.Quarantine, err = quarantineFile(c.Folder, name, file, used)
	}
	err = errors.Join(err, file.Close())
	if errors.Is(err, errForeign) {
		return "", nil, nil
	}
	if err != nil {
		return "", nil, err
	}
	if err := c.Folder.Remove(name); err != nil {
		return "", nil, fmt.Errorf("remove segment: %w", err)
	}
	if cut != nil {
		return "", cut, nil
	}
	return path, nil, nil
}

// errForeign: a file with the name of a segment is none of the store's.
var errForeign = errors.New("not a segment of the store")

// readOrphan reads the header page of a file that may be a segment, and finds out how long it is without
// the zeros at its end. It holds a piece of it at a time: the file may claim any length. The error is
// errForeign for one that has anything but zeros and no header of the segment, or is larger than any.
func readOrphan(file *os.File, h *segmentHeader) (page []byte, used int64, err error) {
	info, err := file.Stat()
	if err != nil {
		return nil, 0, fmt.Errorf("read segment: %w", err)
	}
	if info.Size() > maxSegmentFile {
		return nil, 0, errForeign
	}
	page = make([]byte, min(headerSize, info.Size()))
	if _, err := file.ReadAt(page, 0); err != nil {
		return nil, 0, fmt.Errorf("read segment: %w", err)
	}
	// Of a file that is not the segment's, no more is read than that.
	if usedBytes(page) > 0 && h.read(page, file.Name()) != nil {
		return nil, 0, errForeign
	}
	if used, err = usedLength(file, info.Size()); err != nil {
		return nil, 0, fmt.Errorf("read segment: %w", err)
	}
	if used > 0 && usedBytes(page) == 0 {
		return nil, 0, errForeign
	}
	return page, used, nil
}

// usedLength is the length of a file of size bytes without the zeros at its end.
func usedLength(file *os.File, size int64) (int64, error) {
	piece := make([]byte, min(size, 1<<20))
	for end := size; end > 0; end -= int64(len(piece)) {
		piece = piece[:min(end, 1<<20)]
		from := end - int64(len(piece))
		if _, err := file.ReadAt(piece, from); err != nil {
			return 0, err
		}
		if n := usedBytes(piece); n > 0 {
			return from + n, nil
		}
	}
	return 0, nil
}

// superseded reports whether an unlisted segment is one that a compaction made, whose inputs are still
// listed if it is not, or one of the log that went into a compaction.
func (c *Config) superseded(h *segmentHeader, b []byte) bool {
	m := latestMark(b)
	return h.origin == originCompacted || m.state != stateOpen && m.lastSeq <= c.Listed.Floor
}
