//go:build linux

// Package powerloss simulates what a disk may hold of a folder when the machine loses power. For tests.
//
// A [Disk] is told of every call that changes a file in the folder, before it is made (package ioevent).
// The files themselves are real: it reads them when it must know what is in them, stores into mappings
// included, since those and read(2) share the page cache. From the calls it knows what is sure to be on
// the medium, and [Disk.Image] draws, at any moment, one of the states that the medium may be in:
//
//   - Of each file, every page of 4 KiB that differs from what was last synced is as it was then, or as it
//     is now, or as it was at some moment in between (a disk may write back when it likes), or zero if no
//     sync has covered it. In some images the unit is the sector of 512 bytes: a page may be torn.
//   - A file's length is that of the last sync, that of now, or one between.
//   - Each name in a folder that was made, renamed or removed since the folder's last sync is, for itself,
//     what it was then, is now, or was in between. Syncing a file does not sync its name.
//   - A sync that was made to fail ([Disk.FailSync]) may have written any of its pages. The others are
//     lost although the system shows them, and no later sync brings them to the medium, unless they are
//     changed again: that is what Linux does. So it is with the names in a folder whose sync failed.
//
// That is more than a journaling file system loses: of those, names become durable in the order of the
// calls. What survives here survives there.
package powerloss

import (
	"bytes"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/freyjadb/freyja/internal/ioevent"
)

const (
	pageSize   = 4096
	sectorSize = 512
	// backlogChance: about one event in so many is followed by the writing back of some dirty pages.
	backlogChance = 8
)

// Disk follows the files below a folder. Its methods may be called by any goroutine.
type Disk struct {
	root string // absolute

	mu      sync.Mutex
	rng     *rand.Rand
	nodes   map[uint64]*node // by inode
	rootID  uint64
	events  int
	deceive bool
}

// node is a file or a folder, with or without a name now.
type node struct {
	// Of a file.
	handle *os.File         // keeps the inode from reuse, and reads what has no name any more
	synced []byte           // what is sure to be on the medium
	disk   []byte           // synced, with what was written back since
	lost   map[int64][]byte // by offset: pages that a failed sync lost, as the system shows them

	// Of a folder.
	path         string
	now          map[string]uint64          // the entries when it was last looked at; nil for a file
	syncedNames  map[string]uint64          // those that are sure to be on the medium
	betweenNames map[string]map[uint64]bool // by name: what it has been since, 0 for absent
	lostNames    map[string]uint64          // by name: what a failed sync lost, as the system shows it
}

// Watch begins to follow what is below root, all of which it takes for synced.
func Watch(root string, rng *rand.Rand) (*Disk, error) {
	abs, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	d := &Disk{root: abs, rng: rng, nodes: map[uint64]*node{}}
	info, err := os.Stat(abs)
	if err != nil {
		return nil, err
	}
	d.rootID = inode(info)
	d.lookLocked()
	for _, n := range d.nodes {
		if n.now != nil {
			n.syncNames()
		} else {
			n.synced = n.content()
			n.disk = bytes.Clone(n.synced)
		}
	}
	return d, nil
}

// Root is the folder.
func (d *Disk) Root() string { return d.root }

// Close lets go of the files.
func (d *Disk) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, n := range d.nodes {
		n.close()
		delete(d.nodes, id)
	}
}

// Deceive makes every sync from now on one that does nothing and says it did: a disk that lies. It is for
// tests of tests.
func (d *Disk) Deceive() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.deceive = true
}

// Events returns how many calls there were.
func (d *Disk) Events() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.events
}

// Holds reports whether an event is about something below the root.
func (d *Disk) Holds(e ioevent.Event) bool {
	return e.Path == d.root || strings.HasPrefix(e.Path, d.root+string(filepath.Separator))
}

// Before takes notice of a call that is about to be made and will succeed as far as the disk is concerned.
func (d *Disk) Before(e ioevent.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.Holds(e) || d.rootID == 0 {
		return
	}
	d.events++
	switch e.Op {
	case ioevent.Create, ioevent.Rename, ioevent.Remove, ioevent.MakeDir, ioevent.SyncDir:
		d.lookLocked()
	case ioevent.Sync, ioevent.SyncRange:
		if d.nodeAt(e.Path) == nil { // made since
			d.lookLocked()
		}
	}
	if d.rng.IntN(backlogChance) == 0 {
		d.writeBackLocked()
	}
	if d.deceive {
		return
	}
	switch n := d.nodeAt(e.Path); {
	case n == nil:
	case e.Op == ioevent.Sync && n.now == nil:
		now := n.content()
		n.sync(now, 0, int64(len(now)))
		n.setLength(len(now))
	case (e.Op == ioevent.Populate || e.Op == ioevent.Write) && n.now == nil: // the pages become dirty
		for at := e.Offset &^ (pageSize - 1); at < e.Offset+e.Length; at += pageSize {
			delete(n.lost, at)
		}
	case e.Op == ioevent.SyncRange && n.now == nil:
		n.sync(n.content(), e.Offset, e.Offset+e.Length)
	case e.Op == ioevent.SyncDir && n.now != nil:
		n.syncNames()
		d.forgetLocked()
	}
}

// FailSync takes notice of a Sync, SyncRange or SyncDir that is made to fail.
func (d *Disk) FailSync(e ioevent.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.Holds(e) {
		return
	}
	d.lookLocked()
	n := d.nodeAt(e.Path)
	switch {
	case n == nil:
		return
	case n.now != nil:
		n.loseNames()
		return
	}
	from, to := e.Offset, e.Offset+e.Length
	now := n.content()
	if e.Op == ioevent.Sync {
		from, to = 0, int64(len(now))
	}
	for at := from &^ (pageSize - 1); at < to; at += pageSize {
		if page := part(now, at, pageSize); !bytes.Equal(page, part(n.synced, at, pageSize)) {
			if d.rng.IntN(2) == 0 {
				n.disk = put(n.disk, at, page)
			}
			if n.lost == nil {
				n.lost = map[int64][]byte{}
			}
			n.lost[at] = page
		}
	}
}

// lookLocked reads the folders as they are now, and takes notice of files that are new.
func (d *Disk) lookLocked() {
	d.lookAt(d.root, d.rootID)
}

func (d *Disk) lookAt(path string, id uint64) {
	folder := d.nodes[id]
	if folder == nil {
		folder = &node{now: map[string]uint64{}, syncedNames: map[string]uint64{}, betweenNames: map[string]map[uint64]bool{}}
		d.nodes[id] = folder
	}
	folder.path = path
	entries, err := readFolder(path)
	if err != nil {
		return // removed meanwhile: its parent tells
	}
	now := map[string]uint64{}
	for _, e := range entries {
		child := filepath.Join(path, e.name)
		if e.folder {
			d.lookAt(child, e.id)
		} else if !d.know(child, e.id) {
			continue
		}
		now[e.name] = e.id
	}
	folder.change(now)
}

// know opens a file that is new, and reports whether it has one of that inode.
func (d *Disk) know(path string, id uint64) bool {
	if d.nodes[id] != nil {
		return true
	}
	handle, err := os.Open(path)
	if err != nil {
		return false
	}
	if info, err := handle.Stat(); err != nil || inode(info) != id {
		handle.Close()
		return false
	}
	d.nodes[id] = &node{handle: handle}
	return true
}

// change notes which names have become what.
func (n *node) change(now map[string]uint64) {
	note := func(name string) {
		if n.now[name] == now[name] {
			return
		}
		if n.betweenNames[name] == nil {
			n.betweenNames[name] = map[uint64]bool{n.now[name]: true}
		}
		n.betweenNames[name][now[name]] = true
	}
	for name := range n.now {
		note(name)
	}
	for name := range now {
		note(name)
	}
	n.now = now
}

// syncNames puts the names on the medium, but for those that a failed sync has lost.
func (n *node) syncNames() {
	synced, between := maps.Clone(n.now), map[string]map[uint64]bool{}
	for name, id := range n.lostNames {
		if n.now[name] != id {
			delete(n.lostNames, name)
			continue
		}
		between[name] = n.betweenNames[name]
		delete(synced, name)
		if old, ok := n.syncedNames[name]; ok {
			synced[name] = old
		}
	}
	n.syncedNames, n.betweenNames = synced, between
}

// loseNames notes what a sync that fails does not bring to the medium.
func (n *node) loseNames() {
	n.lostNames = map[string]uint64{}
	for name := range n.betweenNames {
		n.lostNames[name] = n.now[name]
	}
}

// forgetLocked lets go of files that have no name any more, and cannot get one back.
func (d *Disk) forgetLocked() {
	named := map[uint64]bool{d.rootID: true}
	for _, n := range d.nodes {
		for _, id := range n.now {
			named[id] = true
		}
		for _, id := range n.syncedNames {
			named[id] = true
		}
		for _, ids := range n.betweenNames {
			for id := range ids {
				named[id] = true
			}
		}
	}
	for id, n := range d.nodes {
		if !named[id] {
			n.close()
			delete(d.nodes, id)
		}
	}
}

func (n *node) close() {
	if n.handle != nil {
		n.handle.Close()
	}
}

func (d *Disk) nodeAt(path string) *node {
	info, err := os.Stat(path)
	if err != nil {
		return nil
	}
	return d.nodes[inode(info)]
}

// content is the file as the system shows it.
func (n *node) content() []byte {
	info, err := n.handle.Stat()
	if err != nil {
		return nil
	}
	b := make([]byte, info.Size())
	got, _ := n.handle.ReadAt(b, 0) // shorter if it is cut this moment
	return b[:got]
}

// sync puts the pages of [from, to) on the medium, but for those that a failed sync has lost.
func (n *node) sync(now []byte, from, to int64) {
	for at := from &^ (pageSize - 1); at < min(to, int64(len(now))); at += pageSize {
		page := part(now, at, pageSize)
		if lost, ok := n.lost[at]; ok {
			if bytes.Equal(lost, page) {
				continue
			}
			delete(n.lost, at)
		}
		n.synced = put(n.synced, at, page)
		n.disk = put(n.disk, at, page)
	}
}

func (n *node) setLength(length int) {
	n.synced, n.disk = resize(n.synced, length), resize(n.disk, length)
}

// writeBackLocked writes some pages of some file back.
func (d *Disk) writeBackLocked() {
	for _, n := range d.nodes { // in the map's random order
		if n.now != nil {
			continue
		}
		now := n.content()
		for at := int64(0); at < int64(len(now)); at += pageSize {
			page := part(now, at, pageSize)
			if d.rng.IntN(2) == 0 && !bytes.Equal(n.lost[at], page) {
				n.disk = put(n.disk, at, page)
			}
		}
		return
	}
}

// part is the n bytes of b from an offset, or fewer at its end.
func part(b []byte, at, n int64) []byte {
	if at >= int64(len(b)) {
		return nil
	}
	return b[at:min(at+n, int64(len(b)))]
}

// put returns b with some of its bytes replaced, and longer if need be.
func put(b []byte, at int64, with []byte) []byte {
	b = resize(b, max(len(b), int(at)+len(with)))
	copy(b[at:], with)
	return b
}

func resize(b []byte, length int) []byte {
	if length <= len(b) {
		return b[:length:length]
	}
	return append(b, make([]byte, length-len(b))...)
}

func inode(info fs.FileInfo) uint64 { return info.Sys().(*syscall.Stat_t).Ino }
