package main

import (
	"errors"
	"io"
	"os"
)

// inputFile is a file, or standard input, that a command reads.
type inputFile struct {
	io.Reader
	name string // for errors
	size int64  // bytes to come, -1 if nobody knows
	// close closes a file and leaves standard input alone.
	close func()
}

var errFolder = errors.New("a folder, not a file")

// openInputFile opens the file called name, or takes standard input if that is "-". Its errors are the
// input's: a mistyped name is no fault of the store.
func (a *app) openInputFile(name string) (*inputFile, error) {
	if name == "-" {
		in := &inputFile{Reader: a.stdin, name: "standard input", size: -1, close: func() {}}
		if file, ok := a.stdin.(*os.File); ok {
			in.size = bytesAhead(file)
		}
		return in, nil
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, &inputError{at: position{name: name}, err: errors.Unwrap(err), fatal: true}
	}
	if info, err := file.Stat(); err == nil && info.IsDir() {
		_ = file.Close()
		return nil, &inputError{at: position{name: name}, err: errFolder, fatal: true}
	}
	closeFile := func() { _ = file.Close() } // only read from
	return &inputFile{Reader: file, name: name, size: bytesAhead(file), close: closeFile}, nil
}

// bytesAhead is how many bytes are left to read in file, -1 if that cannot be known.
func bytesAhead(file *os.File) int64 {
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return -1
	}
	at, err := file.Seek(0, io.SeekCurrent)
	if err != nil {
		return -1
	}
	return max(0, info.Size()-at)
}
