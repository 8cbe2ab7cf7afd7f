package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// outputBuffer is how many bytes are written to an output at a time, at least.
const outputBuffer = 64 << 10

// output is what a command writes for somebody to keep: standard output, or a file that takes its name
// only when it is complete and on disk. Until then it is called the same with ".tmp" behind, and what
// had the name before stays.
type output struct {
	*bufio.Writer
	file *os.File // nil: standard output, or committed
	info fs.FileInfo
	path string
}

// openOutput begins the file called name; "-" is standard output. The caller ends it by commit, and
// defers discard.
func (a *app) openOutput(name string) (*output, error) {
	if name == "-" {
		return newOutput(a.stdout), nil
	}
	path, mode, err := outputPlace(name)
	if err != nil {
		return nil, err
	}
	// A .tmp is what a killed run left, or another run's that goes on: commit tells.
	if err := os.Remove(path + tmpSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	file, err := os.OpenFile(path+tmpSuffix, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return nil, err
	}
	o := newOutput(file)
	o.file, o.path = file, path
	if o.info, err = file.Stat(); err != nil {
		o.discard()
		return nil, err
	}
	return o, nil
}

const tmpSuffix = ".tmp"

func newOutput(w io.Writer) *output { return &output{Writer: bufio.NewWriterSize(w, outputBuffer)} }

// outputPlace is where the file called name goes, and the rights it gets: those of a file that it
// replaces. A link stays one, and its target is replaced. What is there and no file (/dev/null, a
// pipe) must not be replaced by one.
func outputPlace(name string) (path string, mode fs.FileMode, err error) {
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return name, 0o644, nil
	case err != nil:
		return "", 0, err
	case !info.Mode().IsRegular():
		return "", 0, usagef("%q is there and is not a regular file; write to it with - and a redirection", name)
	}
	path, err = filepath.EvalSymlinks(name)
	return path, info.Mode().Perm(), err
}

// commit writes out what is buffered; a file it puts on disk and gives its name.
func (o *output) commit() error {
	if err := o.Flush(); err != nil || o.file == nil {
		return err
	}
	if err := o.file.Sync(); err != nil {
		return err
	}
	if err := o.file.Close(); err != nil {
		return err
	}
	tmp := o.path + tmpSuffix
	info, err := os.Stat(tmp)
	if err != nil {
		return err
	}
	if !os.SameFile(info, o.info) {
		return fmt.Errorf("%q has been replaced meanwhile: does another process write to %q?", tmp, o.path)
	}
	if err := os.Rename(tmp, o.path); err != nil {
		return err
	}
	o.file = nil
	return syncFolder(filepath.Dir(o.path))
}

// discard removes a file that was not committed, unless its name is another's by now.
func (o *output) discard() {
	if o.file == nil {
		return
	}
	_ = o.file.Close() // again, perhaps
	tmp := o.path + tmpSuffix
	if info, err := os.Stat(tmp); err == nil && (o.info == nil || os.SameFile(info, o.info)) {
		_ = os.Remove(tmp) // the error that led here says more
	}
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
	defer folder.Close()
	return folder.Sync()
}
