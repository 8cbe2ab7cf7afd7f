//go:build linux

package powerloss

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
)

// Image is what a disk may hold.
type Image struct {
	Files   map[string][]byte // by path below the root
	Folders []string          // paths, parents first
}

// Image draws one of the states that the disk may be in now.
func (d *Disk) Image() Image {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lookLocked()
	im := Image{Files: map[string][]byte{}}
	unit := int64(pageSize)
	if d.rng.IntN(4) == 0 {
		unit = sectorSize
	}
	d.drawFolder(&im, "", d.nodes[d.rootID], unit, map[uint64]bool{d.rootID: true})
	return im
}

// drawFolder draws what each name of a folder is. A folder that was renamed may be found under both its
// names, and above itself then: inside has those that are being drawn.
func (d *Disk) drawFolder(im *Image, path string, n *node, unit int64, inside map[uint64]bool) {
	fresh := drawBias(d.rng)
	names := slices.Collect(maps.Keys(n.syncedNames))
	for name := range n.betweenNames {
		if _, ok := n.syncedNames[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		id := n.syncedNames[name]
		if between := n.betweenNames[name]; between != nil {
			if d.rng.Float64() < fresh {
				id = n.now[name]
			} else if d.rng.IntN(3) == 0 {
				ids := slices.Sorted(maps.Keys(between))
				id = ids[d.rng.IntN(len(ids))]
			}
		}
		child := d.nodes[id]
		switch {
		case id == 0 || child == nil || inside[id]:
		case child.now == nil:
			im.Files[filepath.Join(path, name)] = child.draw(d.rng, unit)
		default:
			im.Folders = append(im.Folders, filepath.Join(path, name))
			inside[id] = true
			d.drawFolder(im, filepath.Join(path, name), child, unit, inside)
			delete(inside, id)
		}
	}
}

// drawBias draws how likely it is that something is as it is now: a disk may have written nothing, all, or
// some.
func drawBias(rng *rand.Rand) float64 {
	return []float64{0, 1, 0.5, 0.5, 0.5, 0.1, 0.9}[rng.IntN(7)]
}

// draw draws a file's content.
func (n *node) draw(rng *rand.Rand, unit int64) []byte {
	now, fresh := n.content(), drawBias(rng)
	length := len(n.synced)
	if rng.Float64() < fresh {
		length = len(now)
	} else if rng.IntN(3) == 0 {
		length = min(length, len(now))
		if more := max(len(n.synced), len(now)) - length; more > 0 {
			length += rng.IntN(more + 1)
		}
	}
	b := make([]byte, length)
	for at := int64(0); at < int64(length); at += unit {
		old, between, new := part(n.synced, at, unit), part(n.disk, at, unit), part(now, at, unit)
		if lost, ok := n.lost[at&^(pageSize-1)]; ok && bytes.Equal(lost, part(now, at&^(pageSize-1), pageSize)) {
			new = between
		}
		switch {
		case rng.Float64() < fresh:
			copy(b[at:], new)
		case rng.IntN(3) == 0:
			copy(b[at:], between)
		default:
			copy(b[at:], old) // nothing, if no sync covered it
		}
	}
	return b
}

// Write makes a folder with the image in it.
func (im Image) Write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, folder := range im.Folders {
		if err := os.MkdirAll(filepath.Join(dir, folder), 0o755); err != nil {
			return err
		}
	}
	for name, b := range im.Files {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}
