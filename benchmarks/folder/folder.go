// Package folder tells what a store takes on disk, by looking at its files: a store's own account is what is
// to be checked.
package folder

import (
	"errors"
	"io/fs"
	"path/filepath"
)

// Size is what the files of a folder take.
type Size struct {
	Length int64 // sum of the files' lengths, as ls shows them
	Blocks int64 // sum of what the file system has given them, as du shows it; Length where it does not tell
	Files  map[string]int64
}

// Measure sums up all files below dir. Files may come and go meanwhile: one that is gone before it was looked at does
// not count. Files are the lengths by path below dir.
func Measure(dir string) (Size, error) {
	size := Size{Files: make(map[string]int64)}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return unlessGone(err, path == dir)
		}
		if entry.IsDir() {
			return nil
		}
		info, err := entry.Info()
		if err != nil {
			return unlessGone(err, false)
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		size.Files[name] = info.Size()
		size.Length += info.Size()
		size.Blocks += blockBytes(info)
		return nil
	})
	return size, err
}

// unlessGone returns err unless it says that something below the folder is gone. The folder itself must be there.
func unlessGone(err error, itself bool) error {
	if errors.Is(err, fs.ErrNotExist) && !itself {
		return nil
	}
	return err
}

// Removed lists the files of before that are not in s.
func (s Size) Removed(before Size) []string {
	var gone []string
	for name := range before.Files {
		if _, there := s.Files[name]; !there {
			gone = append(gone, name)
		}
	}
	return gone
}
