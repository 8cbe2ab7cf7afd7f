package freyja

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/stretchr/testify/require"
)

// What a model program does to the files of its store: it kills the store, damages what can be made
// again, and restores a backup.

var restartOperations = map[string]func(p *program){
	"Kill":             (*program).kill,
	"DamageExtracts":   (*program).damageExtracts,
	"ReopenSpoiled":    (*program).reopenSpoiled,
	"BackupAndRestore": (*program).backupAndRestore,
}

// kill goes on with what the store's process would leave if it died now.
func (p *program) kill() {
	im := settledImage(p, p.dir)
	if p.choose(3, "extracts are gone") == 0 {
		maps.DeleteFunc(im, func(name string, _ []byte) bool { return isExtract(name) && p.choose(2, "this one") == 0 })
	}
	p.moveTo(im.write(p, filepath.Dir(p.dir)))
	p.reopen()
	p.checkAll()
}

// moveTo gives up the store for one in another folder.
func (p *program) moveTo(dir string) {
	require.NoError(p, p.db.Close())
	require.NoError(p, os.RemoveAll(p.dir))
	p.dir = dir
}

// damageExtracts spoils hint files and saved indexes under the running store.
func (p *program) damageExtracts() { p.spoil() }

// reopenSpoiled opens the store without some of its hint files and saved indexes, or with damaged ones.
func (p *program) reopenSpoiled() {
	p.close()
	p.spoil()
	p.opts.ReadOnly = p.choose(3, "read-only first") == 0
	p.open()
	p.checkAll()
	if !p.opts.ReadOnly {
		return
	}
	require.NoError(p, p.db.Close())
	p.opts.ReadOnly = false
	p.open()
	p.checkAll()
}

// spoil removes or damages some of the files that can be made again.
func (p *program) spoil() {
	im := readImage(p, p.dir)
	for _, name := range slices.Sorted(maps.Keys(im)) {
		path, b := filepath.Join(p.dir, name), im[name]
		if !isExtract(name) || len(b) == 0 {
			continue
		}
		var err error
		switch p.choose(5, "damage") {
		case 0:
			err = os.Remove(path)
		case 1:
			at := p.choose(len(b), "byte")
			err = overwrite(path, int64(at), b[at]^1<<p.choose(8, "bit"))
		case 2:
			err = os.Truncate(path, int64(p.choose(len(b), "length")))
		}
		if !errors.Is(err, os.ErrNotExist) { // compaction may have removed it meanwhile
			require.NoError(p, err)
		}
	}
}

// overwrite changes one byte of a file that exists.
func overwrite(path string, at int64, b byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteAt([]byte{b}, at)
	return errors.Join(err, file.Close())
}

// backupAndRestore goes on with a store made from a backup, with another number of shards.
func (p *program) backupAndRestore() {
	var stream bytes.Buffer
	info, err := p.db.Backup(context.Background(), &stream)
	require.NoError(p, err)
	require.EqualValues(p, len(p.ref.live()), info.Keys)
	opts := p.opts
	opts.Shards = 1 << p.choose(4, "log2 shards")
	dir, err := os.MkdirTemp(filepath.Dir(p.dir), "restored-")
	require.NoError(p, err)
	require.NoError(p, Restore(context.Background(), &stream, dir, &opts))
	p.moveTo(dir)
	p.opts = opts
	maps.DeleteFunc(p.ref.entries, func(_ string, e entry) bool { return e.expired })
	p.open()
	p.checkAll()
}
