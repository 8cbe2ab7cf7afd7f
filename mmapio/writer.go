package mmapio

import (
	"errors"
	"fmt"
	"os"
)

// Writer writes a new file from front to back that nobody reads before it is complete: what takes no
// more bytes after it was made needs no reservation and no writable mapping, whose pages would have to be
// faulted in one by one. For one goroutine.
type Writer struct {
	folder *Folder
	name   string   // in the folder
	path   string   // for messages
	file   *os.File // nil once finished or aborted
	buffer []byte   // not yet written
	offset int64    // of buffer in the file
}

const writerBuffer = 256 << 10

// NewWriter makes a file, whose name must be free. Errors wrap the system's.
func (d *Folder) NewWriter(name string) (*Writer, error) {
	path := d.PathOf(name)
	file, err := d.diskOpen(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return nil, fmt.Errorf("mmapio: create %q: %w", path, cause(err))
	}
	return &Writer{folder: d, name: name, path: path, file: file, buffer: make([]byte, 0, writerBuffer)}, nil
}

// Append adds b to the end. Errors wrap the system's, ENOSPC and EFBIG among them; the file is then of
// no use.
func (w *Writer) Append(b []byte) error {
	if len(w.buffer)+len(b) > cap(w.buffer) {
		if err := w.flush(); err != nil {
			return err
		}
		if len(b) > cap(w.buffer) {
			return w.write(b)
		}
	}
	w.buffer = append(w.buffer, b...)
	return nil
}

func (w *Writer) flush() error {
	err := w.write(w.buffer)
	w.buffer = w.buffer[:0]
	return err
}

func (w *Writer) write(b []byte) error {
	if err := diskWrite(w.file, b, w.offset); err != nil {
		return fmt.Errorf("mmapio: write %q at offset %d: %w", w.path, w.offset, cause(err))
	}
	w.offset += int64(len(b))
	return nil
}

// WriteHead replaces the first bytes of the file, which must have been appended before.
func (w *Writer) WriteHead(b []byte) error {
	if err := w.flush(); err != nil {
		return err
	}
	if err := diskWrite(w.file, b, 0); err != nil {
		return fmt.Errorf("mmapio: write %q at offset 0: %w", w.path, cause(err))
	}
	return nil
}

// Finish syncs and closes the file. When it returns nil the content is on disk; the name only after
// Sync of the folder. After an error, Abort is still to be called.
func (w *Writer) Finish() error {
	if err := w.flush(); err != nil {
		return err
	}
	if err := diskSync(w.file); err != nil {
		return fmt.Errorf("mmapio: sync %q: %w", w.path, cause(err))
	}
	file := w.file
	w.file = nil
	if err := file.Close(); err != nil {
		return fmt.Errorf("mmapio: close %q: %w", w.path, cause(err))
	}
	return nil
}

// Abort closes the file, if Finish has not, and removes it.
func (w *Writer) Abort() error {
	var err error
	if w.file != nil {
		err = w.file.Close()
		w.file = nil
	}
	return errors.Join(err, w.folder.removeLeft(w.name))
}
