//go:build linux

package powerloss

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// Kill is the death of the process that writes, not of the machine: it makes the folder dir with all files
// as the system shows them now, and returns a Disk that follows it from there. What was not on the medium
// is not on it now either, and goes if the power fails before it is synced.
func (d *Disk) Kill(dir string, rng *rand.Rand) (*Disk, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lookLocked()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	k := killing{from: d, to: &Disk{root: dir, rng: rng, nodes: map[uint64]*node{}}, ids: map[uint64]uint64{0: 0}, paths: map[uint64]string{}}
	if err := k.copyAll(); err != nil {
		k.to.Close()
		return nil, fmt.Errorf("copy %q: %w", d.root, err)
	}
	return k.to, nil
}

// killing copies one disk's files to the folder of another. Inodes have other numbers there.
type killing struct {
	from, to *Disk
	ids      map[uint64]uint64 // inode there by inode here
	paths    map[uint64]string // of the files there, by inode here
}

func (k *killing) copyAll() error {
	for id, n := range k.from.nodes {
		if n.now == nil {
			if err := k.copyFile(id, n); err != nil {
				return err
			}
		}
	}
	if err := k.makeFolders(k.to.root, k.from.rootID); err != nil {
		return err
	}
	k.to.rootID = k.ids[k.from.rootID]
	for id, n := range k.from.nodes {
		if n.now != nil {
			k.copyNames(id, n)
		}
	}
	for _, path := range k.paths {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return nil
}

// copyFile copies a file, under a name that it has only until the end: some have none any more.
func (k *killing) copyFile(id uint64, n *node) error {
	path := filepath.Join(k.to.root, fmt.Sprintf("inode-%d", id))
	if err := os.WriteFile(path, n.content(), 0o644); err != nil {
		return err
	}
	handle, err := os.Open(path)
	if err != nil {
		return err
	}
	info, err := handle.Stat()
	if err != nil {
		handle.Close()
		return err
	}
	k.ids[id], k.paths[id] = inode(info), path
	k.to.nodes[inode(info)] = &node{handle: handle, synced: bytes.Clone(n.synced), disk: bytes.Clone(n.disk), lost: maps.Clone(n.lost)}
	return nil
}

// makeFolders makes the folders that there are now, and gives the files in them their names.
func (k *killing) makeFolders(path string, id uint64) error {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	k.ids[id] = inode(info)
	for name, child := range k.from.nodes[id].now {
		path := filepath.Join(path, name)
		if file, ok := k.paths[child]; ok {
			err = os.Link(file, path)
		} else if k.from.nodes[child] != nil {
			err = k.makeFolders(path, child)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// copyNames copies what is known of the entries of a folder. One that is gone gets a number that no file has.
func (k *killing) copyNames(id uint64, n *node) {
	if _, ok := k.ids[id]; !ok {
		k.ids[id] = 1<<63 | id
	}
	translate := func(names map[string]uint64) map[string]uint64 {
		next := map[string]uint64{}
		for name, id := range names {
			if to, ok := k.ids[id]; ok {
				next[name] = to
			}
		}
		return next
	}
	next := &node{now: translate(n.now), syncedNames: translate(n.syncedNames), betweenNames: map[string]map[uint64]bool{},
		lostNames: translate(n.lostNames)}
	for name, ids := range n.betweenNames {
		next.betweenNames[name] = map[uint64]bool{}
		for id := range ids {
			if to, ok := k.ids[id]; ok {
				next.betweenNames[name][to] = true
			}
		}
	}
	k.to.nodes[k.ids[id]] = next
}
