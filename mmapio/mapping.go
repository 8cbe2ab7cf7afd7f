package mmapio

import (
	"fmt"
	"io"
	"os"
	"runtime"
)

// Mapping is a shared, read-only mapping of the first bytes of a file. Any number of goroutines may
// use it at once. It is unmapped by a cleanup some time after it has become unreachable, and never
// before; there is no Close.
//
// A slice of its bytes does not keep it reachable. Call runtime.KeepAlive on the Mapping, or on
// something that refers to it, after the last use of the bytes.
type Mapping struct {
	data   []byte // the mapped bytes; immutable, as are path, folder and name
	path   string // for messages
	folder *Folder
	name   string // in the folder when it was mapped
	visits visits
}

// OpenMapping maps the first length bytes of a file read-only. What is appended within
// those bytes later, by whatever process, is visible in it.
//
// Errors: length not positive (os.ErrInvalid), a file shorter than length (ErrTruncated), and
// whatever opening and mapping return. It costs an open, a stat, a mmap and a close; no page is read.
func (d *Folder) OpenMapping(name string, length int64) (*Mapping, error) {
	return d.OpenMappingWithHead(name, length, nil)
}

// OpenMappingWithHead is OpenMapping and also reads the first bytes of the file into head. That costs a
// system call, where the first load from the mapping would cost a page fault, which is many times as
// much on some virtual machines. Other errors: those of reading, and io.ErrUnexpectedEOF for a file
// shorter than head.
func (d *Folder) OpenMappingWithHead(name string, length int64, head []byte) (*Mapping, error) {
	path := d.PathOf(name)
	if length <= 0 || length > maxLength {
		return nil, fmt.Errorf("mmapio: map %q: length %d: %w", path, length, os.ErrInvalid)
	}
	file, err := d.diskOpen(name, os.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("mmapio: open %q: %w", path, cause(err))
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("mmapio: stat %q: %w", path, cause(err))
	}
	if info.Size() < length {
		return nil, fmt.Errorf("mmapio: map %q: %d bytes wanted, file ends at offset %d: %w",
			path, length, info.Size(), ErrTruncated)
	}
	if len(head) > 0 {
		if _, err := io.ReadFull(file, head); err != nil {
			return nil, fmt.Errorf("mmapio: read %q at offset 0: %w", path, cause(err))
		}
	}
	return d.newMapping(file, name, length)
}

// newMapping maps file read-only and ties the mapping's life to the returned object. The cleanup's
// argument is the registry's region, which must not refer to the Mapping.
func (d *Folder) newMapping(file *os.File, name string, length int64) (*Mapping, error) {
	r, err := regions.add(file, d, length, false)
	if err != nil {
		return nil, err
	}
	m := &Mapping{data: r.data, path: r.path, folder: d, name: name}
	runtime.AddCleanup(m, func(r *region) {
		// There is nobody to tell. A region that could not be unmapped stays in the registry,
		// where Live shows it.
		_ = regions.release(r)
	}, r)
	return m, nil
}

// Bytes returns the mapped bytes. They must not be stored into (that faults), and are valid as long
// as the Mapping is reachable. Cost: a load.
func (m *Mapping) Bytes() []byte { return m.data }

// Path returns the path the file had when it was mapped, for messages; it may have been removed since.
func (m *Mapping) Path() string { return m.path }

// Advice tells the kernel how a mapping is going to be read.
type Advice int

const (
	AdviceNormal     Advice = iota // no pattern known: the kernel's own read-ahead
	AdviceRandom                   // single records in no order: no read-ahead
	AdviceSequential               // once from front to back: read ahead far, drop early
	AdviceWillNeed                 // all of it soon: start reading it in now
)

// Advise passes an advice on for the whole mapping; it replaces the one before. It never changes what
// the bytes are, and does nothing where the system has no such call. It returns the system's error,
// or os.ErrInvalid for an unknown advice. It may run while others read.
func (m *Mapping) Advise(a Advice) error {
	if a < AdviceNormal || a > AdviceWillNeed {
		return fmt.Errorf("mmapio: advise %q: advice %d: %w", m.path, a, os.ErrInvalid)
	}
	err := sysAdvise(m.data, a)
	runtime.KeepAlive(m)
	if err != nil {
		return fmt.Errorf("mmapio: advise %q: %w", m.path, err)
	}
	return nil
}

// DiskWaits is how many loads from memory of this process waited for a page to be read since it began, and how many
// blocks of 512 bytes were read for it in any way; ok is false where that is not known.
func DiskWaits() (faults, blocks int64, ok bool) { return sysDiskWaits() }

// Prefetch has the pages of [from, to) that are not in the page cache read, and does not wait for them. Where the system has
// no such call it does nothing. Errors are those of Populate.
func (m *Mapping) Prefetch(from, to int64) error {
	if from < 0 || to < from || to > int64(len(m.data)) {
		return fmt.Errorf("mmapio: prefetch %q: range %d to %d: %w", m.path, from, to, os.ErrInvalid)
	}
	if from == to {
		return nil
	}
	err := sysAdvise(m.data[roundDown(from):min(roundUp(to), int64(len(m.data)))], AdviceWillNeed)
	runtime.KeepAlive(m)
	if err != nil {
		return fmt.Errorf("mmapio: prefetch %q at offset %d: %w", m.path, from, err)
	}
	return nil
}

// Populate maps the pages of [from, to) that are in the page cache, and reads those that are not, so
// that loads from them fault no more: one call instead of a fault for each few pages. Where the kernel
// cannot, it does nothing. It may run while others read, and nobody may have trimmed the file below to.
// It returns the system's error, os.ErrInvalid for a range outside the mapping.
func (m *Mapping) Populate(from, to int64) error {
	if from < 0 || to < from || to > int64(len(m.data)) {
		return fmt.Errorf("mmapio: populate %q: range %d to %d: %w", m.path, from, to, os.ErrInvalid)
	}
	if from == to {
		return nil
	}
	err := sysPopulateRead(m.data[roundDown(from):min(roundUp(to), int64(len(m.data)))])
	runtime.KeepAlive(m)
	if err != nil {
		return fmt.Errorf("mmapio: populate %q at offset %d: %w", m.path, from, err)
	}
	return nil
}
