package mmapio

import (
	"path/filepath"
)

// The functions of a Folder, for tests that have no need of one: each opens the folder of a path anew. Those folders are
// closed by the collector, as files are that nobody closes.

// in returns the folder of a path, and the name in it.
func in(path string) (*Folder, string, error) {
	d, err := OpenFolder(filepath.Dir(path))
	return d, filepath.Base(path), err
}

func Create(path string, size int64, head []byte) (*File, error) {
	d, name, err := in(path)
	if err != nil {
		return nil, err
	}
	return d.Create(name, size, head)
}

func OpenFile(path string, size int64) (*File, error) {
	d, name, err := in(path)
	if err != nil {
		return nil, err
	}
	return d.OpenFile(name, size)
}

func OpenMapping(path string, length int64) (*Mapping, error) {
	d, name, err := in(path)
	if err != nil {
		return nil, err
	}
	return d.OpenMapping(name, length)
}

func Lock(path string, exclusive bool) (*LockFile, error) {
	d, name, err := in(path)
	if err != nil {
		return nil, err
	}
	return d.Lock(name, exclusive)
}

func WriteFileAtomic(path string, data []byte) error {
	d, name, err := in(path)
	if err != nil {
		return err
	}
	return d.WriteFileAtomic(name, data)
}

func SyncFile(path string) error {
	d, name, err := in(path)
	if err != nil {
		return err
	}
	return d.SyncFile(name)
}

func CreatePreallocated(path string, size int64) (*Preallocated, error) {
	d, name, err := in(path)
	if err != nil {
		return nil, err
	}
	return d.CreatePreallocated(name, size)
}
