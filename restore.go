package freyja

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/freyjadb/freyja/internal/bystander"
	"github.com/freyjadb/freyja/internal/crashpoint"
	"github.com/freyjadb/freyja/mmapio"
	"github.com/freyjadb/freyja/shard"
)

// Restore makes a store in the folder dir from a backup, which it reads from r to the end. dir must be
// missing, or be empty but for what file systems and desktops put there, such as lost+found; missing parents are made. opts are those of Open, nil
// for the defaults, except that Shards 0 means as many as the backed-up store had, while another number
// divides its keys anew, and that nothing is synced before the end, whatever Durability says. Keys keep
// the time at which they expire. Those that have expired are restored too, whatever the clock says, and
// compaction drops them (Options.ExpiryGrace).
//
// The store is built beside dir, in a folder whose name is dir's with ".restore-" and random digits behind
// it. Only when the backup has verified to its last byte and the store is on disk is that folder renamed
// to dir. An empty dir is removed for it, and gives it its permissions. Where that cannot be (a mount point, the working
// folder, a folder with lost+found or the like in it) or would take the folder from its owner, the store is built in a
// folder ".restore-" in dir, and its files are moved to dir one by one, the manifest last; if the process may, they
// are given to the owner of dir. So dir is a whole store or as it was: after an error, or the end of
// ctx, the new folder is removed, and a crash in the middle leaves nothing but the ".restore-" folder,
// which may be removed by hand. (In the instant of a renaming it can leave an empty dir missing, too; and of a store whose files
// are moved one by one, files without a manifest, which Open refuses.)
//
// It costs a Put of each key, one after the other, and a sync of the store. The memory used is a small
// multiple of the largest record. ctx ends it between blocks; it cannot interrupt a Read.
//
// Errors: ErrInvalidOptions, also for ReadOnly and for a dir that cannot be used; ErrFormat for a backup
// of a newer version and for what is no backup; ErrCorrupt, naming the offset in the stream, if it was
// cut, altered or added to; ctx's error; those of r, of Open and of Put.
func Restore(ctx context.Context, r io.Reader, dir string, opts *Options) error {
	if err := restore(ctx, r, dir, opts); err != nil {
		return fmt.Errorf("freyja: restore %q: %w", dir, err)
	}
	return nil
}

func restore(ctx context.Context, r io.Reader, dir string, opts *Options) (err error) {
	o, err := restoreOptions(opts)
	if err != nil {
		return err
	}
	target, err := findTarget(dir, o.FileMode)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	stream, err := newBackupReader(r)
	if err != nil {
		return err
	}
	if o.Shards == 0 {
		o.Shards = stream.header.shards
	}
	done := false // stays so if r panics
	defer func() {
		if !done {
			err = errors.Join(err, target.remove())
		}
	}()
	if err := target.create(); err != nil {
		return err
	}
	if err := loadBackup(ctx, stream, target.tmp, &o); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	err = target.move()
	done = err == nil
	return err
}

// restoreOptions is what the store is opened with while it is filled.
func restoreOptions(opts *Options) (Options, error) {
	if _, err := opts.withDefaults(); err != nil {
		return Options{}, err
	}
	var o Options
	if opts != nil {
		o = *opts
	}
	if o.ReadOnly {
		return o, fmt.Errorf("Options.ReadOnly is set for a store that is to be made: %w", ErrInvalidOptions)
	}
	o.Durability = Never        // Close syncs
	o.DisableAutoCompact = true // there is nothing to compact
	return o, nil
}

// loadBackup makes a store in dir with what the stream holds. All of it is on disk when it returns nil.
func loadBackup(ctx context.Context, stream *backupReader, dir string, o *Options) (err error) {
	db, err := OpenContext(ctx, dir, o)
	if err != nil {
		return err
	}
	complete := false // stays so if the reader panics
	defer func() {
		if !complete { // the folder goes, so nothing in it need be on disk
			err = errors.Join(err, db.close((*shard.Shard).CloseUnsynced))
			return
		}
		err = db.Close()
	}()
	stored := int64(0)
	err = stream.entries(ctx, func(e *backupEntry) error {
		stored++
		return db.put(e.key, e.value, e.expiry)
	})
	if err != nil {
		return err
	}
	if n := db.Usage().Keys; n != stored {
		return fmt.Errorf("the backup has %d entries for %d keys: %w", stored, n, ErrCorrupt)
	}
	complete = true
	return nil
}

// restoreTarget is the folder that a store is to be restored to, with the one beside it in which it is
// built. What is made on the way there, remove removes.
type restoreTarget struct {
	dir    string      // absolute, and not a symbolic link
	exists bool        // dir is there and empty
	mode   os.FileMode // permissions of dir
	inside bool        // dir cannot give way, or is another user's: the store is built in a folder in dir
	tmp    string      // "" until it is made
	moved  []string    // names in dir, of files that came out of tmp
	made   []string    // parents that were missing, the deepest first
}

// findTarget makes sure that a store whose files have a mode may be put into dir. It changes nothing.
func findTarget(dir string, mode os.FileMode) (*restoreTarget, error) {
	refuse := func(why string) (*restoreTarget, error) {
		return nil, fmt.Errorf("the folder %s: %w", why, ErrInvalidOptions)
	}
	if dir == "" {
		return refuse("has an empty name")
	}
	path, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
		return &restoreTarget{dir: path, mode: mmapio.FolderMode(cmp.Or(mode, DefaultFileMode))}, nil
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return refuse("is a file")
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if !bystander.Is(e.Name()) {
			return refuse(fmt.Sprintf("is not empty, it holds %q", e.Name()))
		}
	}
	t := &restoreTarget{dir: path, exists: true, mode: info.Mode().Perm()}
	working, err := os.Stat(".")
	t.inside = len(entries) > 0 || isOthers(info) || err == nil && os.SameFile(working, info)
	return t, nil
}

// create makes the folder in which the store is built, with the permissions of the one it will replace,
// so that nobody may read the one who may not read the other.
func (t *restoreTarget) create() error {
	parent := filepath.Dir(t.dir)
	for dir := parent; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
			break
		}
		t.made = append(t.made, dir)
	}
	if err := mmapio.MakeParents(t.dir); err != nil {
		return err
	}
	var random [8]byte
	if _, err := rand.Read(random[:]); err != nil {
		return err
	}
	tmp := fmt.Sprintf("%s.restore-%x", t.dir, random)
	if t.exists && !t.inside { // a mount point cannot give way: better to know now than after hours
		if err := mmapio.RenameFolder(t.dir, tmp); err != nil {
			t.inside = true
		} else if err := mmapio.RenameFolder(tmp, t.dir); err != nil {
			return err
		}
	}
	if t.inside {
		tmp = filepath.Join(t.dir, fmt.Sprintf(".restore-%x", random))
	}
	if err := mmapio.MakeFolder(tmp, t.mode|0o700); err != nil {
		return err
	}
	t.tmp = tmp
	return nil
}

// move gives the store its place. After an error dir is as it was before.
func (t *restoreTarget) move() error {
	if t.inside {
		return whenUnmapped(t.moveInside)
	}
	if t.exists { // renaming onto a folder is not possible everywhere
		if err := mmapio.RemoveFolder(t.dir); err != nil {
			return err
		}
	}
	err := whenUnmapped(func() error { return mmapio.RenameFolder(t.tmp, t.dir) })
	if err == nil {
		crashpoint.At("restore.renamed")
		if err = t.sync(); err == nil {
			return nil
		}
		err = errors.Join(err, mmapio.RenameFolder(t.dir, t.tmp))
	}
	if t.exists {
		err = errors.Join(err, t.putBack())
	}
	return err
}

// moveInside moves the files of the store from the folder in dir to dir itself, the manifest last, when all others are
// there for good: without it the files are no store.
func (t *restoreTarget) moveInside() error {
	dir, err := mmapio.OpenFolder(t.dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	tmp, err := dir.OpenSub(filepath.Base(t.tmp))
	if err != nil {
		return err
	}
	defer tmp.Close()
	entries, err := tmp.List()
	if err == nil {
		err = t.stillEmpty(dir)
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := giveToOwner(t.dir, filepath.Join(t.tmp, e.Name())); err != nil {
			return err
		}
		if e.Name() != manifestName {
			if err := t.moveFile(dir, e.Name()); err != nil {
				return err
			}
		}
	}
	if err := dir.Sync(); err != nil {
		return err
	}
	if err := t.moveFile(dir, manifestName); err != nil {
		return err
	}
	if err := dir.Sync(); err != nil {
		return err
	}
	return os.Remove(t.tmp)
}

// stillEmpty makes sure that nobody has put anything into dir meanwhile.
func (t *restoreTarget) stillEmpty(dir *mmapio.Folder) error {
	entries, err := dir.List()
	for _, e := range entries {
		if !bystander.Is(e.Name()) && e.Name() != filepath.Base(t.tmp) && !slices.Contains(t.moved, e.Name()) {
			return fmt.Errorf("%q has come into the folder meanwhile", dir.PathOf(e.Name()))
		}
	}
	return err
}

// moveFile moves a file from the folder in dir to dir, unless there is something else of that name.
func (t *restoreTarget) moveFile(dir *mmapio.Folder, name string) error {
	if _, err := dir.Lstat(name); !errors.Is(err, os.ErrNotExist) {
		return errors.Join(fmt.Errorf("%q has come into the folder meanwhile", dir.PathOf(name)), err)
	}
	if err := dir.Rename(filepath.Join(filepath.Base(t.tmp), name), name); err != nil {
		return err
	}
	t.moved = append(t.moved, name)
	return nil
}

// sync makes the folder's name durable, and those of its parents that are new.
func (t *restoreTarget) sync() error {
	for _, dir := range append([]string{t.dir}, t.made...) {
		if err := mmapio.SyncFolder(filepath.Dir(dir)); err != nil {
			return err
		}
	}
	return nil
}

// putBack makes the empty folder again that move has removed, unless somebody else was faster.
func (t *restoreTarget) putBack() error {
	err := os.Mkdir(t.dir, t.mode)
	if err == nil {
		err = os.Chmod(t.dir, t.mode) // exactly those, whatever the umask
	}
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	return err
}

// remove removes all that create has made, except parents that somebody else uses meanwhile.
func (t *restoreTarget) remove() error {
	var err error
	for _, name := range slices.Backward(t.moved) { // the manifest first
		err = errors.Join(err, os.Remove(filepath.Join(t.dir, name)))
	}
	if t.tmp != "" {
		err = whenUnmapped(func() error { return os.RemoveAll(t.tmp) })
	}
	for _, dir := range t.made {
		_ = os.Remove(dir)
	}
	return err
}

// whenUnmapped calls change, on windows again for a second while it fails: a file that is mapped can
// there be neither removed nor renamed, and the mappings of a closed store go with the garbage.
func whenUnmapped(change func() error) error {
	err := change()
	for i := 0; err != nil && i < 20 && runtime.GOOS == "windows"; i++ {
		runtime.GC()
		time.Sleep(50 * time.Millisecond)
		err = change()
	}
	return err
}
