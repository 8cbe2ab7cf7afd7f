package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/freyjadb/freyja"
)

// tree is a folder whose files are the pairs of an import: the path below the folder, with
// slashes, and the contents.
type tree struct {
	root string // no link: WalkDir would not enter it
	// without is a folder that is left out, though it may lie below root: the store.
	without string
	// leftOut counts what is neither a regular file nor a folder. Valid after the last pair.
	leftOut int64
}

func newTree(root, without string) (*tree, error) {
	real, err := filepath.EvalSymlinks(root)
	if err == nil {
		var info fs.FileInfo
		if info, err = os.Stat(real); err == nil && !info.IsDir() {
			err = errors.New("not a folder")
		}
	}
	if err != nil {
		return nil, &inputError{at: position{name: root}, err: err, fatal: true}
	}
	return &tree{root: real, without: without}, nil
}

// pairs yields the files in lexical order. A file that cannot be read is a bad pair.
func (t *tree) pairs(yield func(pair, error) bool) {
	without, _ := os.Stat(t.without) // missing: there is nothing to leave out
	var contents []byte
	_ = filepath.WalkDir(t.root, func(path string, entry fs.DirEntry, err error) error {
		at := position{name: path}
		switch {
		case err != nil:
			return stopUnless(yield(pair{}, &inputError{at: at, err: err}))
		case entry.IsDir():
			if isFolder(entry, without) {
				return fs.SkipDir
			}
			return nil
		case !entry.Type().IsRegular():
			t.leftOut++
			return nil
		}
		if contents, err = readFile(path, contents[:0]); err != nil {
			return stopUnless(yield(pair{}, &inputError{at: at, err: err}))
		}
		key, err := filepath.Rel(t.root, path)
		if err != nil {
			return stopUnless(yield(pair{}, &inputError{at: at, err: err}))
		}
		return stopUnless(yield(pair{key: []byte(filepath.ToSlash(key)), value: contents, at: at}, nil))
	})
}

func stopUnless(more bool) error {
	if more {
		return nil
	}
	return fs.SkipAll
}

func isFolder(entry fs.DirEntry, other fs.FileInfo) bool {
	if other == nil {
		return false
	}
	info, err := entry.Info()
	return err == nil && os.SameFile(info, other)
}

// readFile appends the contents of a file to buf.
func readFile(path string, buf []byte) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return buf, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return buf, err
	}
	if info.Size() > freyja.MaxValueSize {
		return buf, fmt.Errorf("%d bytes: %w", info.Size(), freyja.ErrValueTooLarge)
	}
	for {
		if len(buf) == cap(buf) {
			grown := make([]byte, len(buf), max(int(info.Size())+1, 2*cap(buf), 4<<10))
			copy(grown, buf)
			buf = grown
		}
		n, err := file.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err == io.EOF {
			return buf, nil
		}
		if err != nil {
			return buf, err
		}
		if len(buf) > freyja.MaxValueSize { // it grew since
			return buf, freyja.ErrValueTooLarge
		}
	}
}
