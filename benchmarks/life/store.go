package life

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/freyjadb/freyja"
	"github.com/freyjadb/freyja/benchmarks/adapters"
	"github.com/freyjadb/freyja/benchmarks/driver"
	"github.com/freyjadb/freyja/benchmarks/engine"
	"github.com/freyjadb/freyja/benchmarks/workload"
)

// store is an open store of a part.
type store struct {
	dir    string
	opts   freyja.Options
	db     *freyja.DB
	engine engine.Store // the same, for the driver
}

// verifySamples is how many values are checked byte by byte.
const verifySamples = 10_000

func openStore(dir string, opts freyja.Options) (*store, error) {
	db, err := freyja.Open(dir, &opts)
	if err != nil {
		return nil, err
	}
	return &store{dir: dir, opts: opts, db: db, engine: adapters.OverFreyja(db)}, nil
}

// filled returns a new store that holds all keys. remove closes it and removes its files.
func (l *life) filled(ctx context.Context, name string, opts freyja.Options) (s *store, err error) {
	data, err := l.data(workload.Uniform)
	if err != nil {
		return nil, err
	}
	l.Progress("%s: load", name)
	releaseMappings()
	opts.Durability = l.Durability
	// The folder's name is new, so that what is left of a store before it, mapped but removed, is not taken for its own.
	if s, err = openStore(filepath.Join(l.Dir, fmt.Sprint(name, "-", len(l.out.Loads))), opts); err != nil {
		return nil, err
	}
	loaded, err := driver.Load(ctx, s.engine, data, false, nil)
	if err == nil {
		err = s.verify(data)
	}
	if err != nil {
		return nil, errors.Join(err, s.remove())
	}
	l.out.Loads = append(l.out.Loads, loaded.PutsPerSecond())
	return s, nil
}

// releaseMappings lets the collector find what closed stores have left mapped, so that it takes no memory from the next.
func releaseMappings() {
	runtime.GC() // the first cycle queues the cleanups of what died
	runtime.GC()
}

// verify checks that all keys are there, as far as samples tell.
func (s *store) verify(data driver.Data) error {
	if n := s.db.Len(); n != int(data.Keys) {
		return fmt.Errorf("the store in %q has %d keys instead of %d", s.dir, n, data.Keys)
	}
	return driver.Verify(s.engine, data, int(min(verifySamples, data.Keys)))
}

// reopen closes the store and opens it again.
func (s *store) reopen() error {
	err := s.db.Close()
	s.db = nil
	if err != nil {
		return err
	}
	again, err := openStore(s.dir, s.opts)
	if err != nil {
		return err
	}
	*s = *again
	return nil
}

func (s *store) remove() error {
	var err error
	if s.db != nil {
		err = s.db.Close()
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}
