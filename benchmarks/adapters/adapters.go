// Package adapters makes each store that is compared an engine.
//
// To add a store, implement engine.Store and as many of the other interfaces of package engine as it offers, and list
// it in All if the driver is to measure it, in Peers if the comparison with other projects' engines is.
//
// # Equal terms
//
// Each of Peers is opened as its own documentation recommends for a service that reads much more than it writes;
// Settings says how, and where that comes from. AppendGet copies, for all of them; View shows a value in place where
// the engine can. Durable means the same for all: the write is on disk when the call returns. What an engine prints
// by itself is turned off. Block caches are as large as the data where memory allows it (see blockCache), because
// that is what the engines that map their files have anyway.
package adapters

import (
	"fmt"
	"strings"

	"github.com/freyjadb/freyja/benchmarks/engine"
)

// All lists the engines that the driver measures, in the order of the tables.
var All = []*engine.Engine{None, Floor, Freyja, FreyjaMutex, RWMutexMap, SyncMap}

// Peers lists the engines of the comparison with other projects', in the order of its tables: those that keep
// files, those that keep nothing, and a yardstick.
var Peers = []*engine.Engine{
	Freyja, Bbolt, Badger, Pebble, GoLevelDB, BuntDB, LMDB, RocksDB,
	RWMutexMap, SyncMap, Ristretto, Otter,
	Floor,
}

// Select returns the engines that names lists, separated by commas, in the order of All.
func Select(names string) ([]*engine.Engine, error) { return selectFrom(All, names) }

// SelectPeers returns the engines of the comparison that names lists, separated by commas, in the order of Peers; "all"
// stands for all of them. Those that this build cannot open are among them: their Left says why.
func SelectPeers(names string) ([]*engine.Engine, error) {
	if strings.TrimSpace(names) == "all" {
		return Peers, nil
	}
	return selectFrom(Peers, names)
}

func selectFrom(engines []*engine.Engine, names string) ([]*engine.Engine, error) {
	wanted := make(map[string]bool)
	for name := range strings.SplitSeq(names, ",") {
		wanted[strings.TrimSpace(name)] = true
	}
	var selected []*engine.Engine
	for _, e := range engines {
		if wanted[e.Name] {
			selected = append(selected, e)
			delete(wanted, e.Name)
		}
	}
	for name := range wanted {
		return nil, fmt.Errorf("engine %q is not one of %s", name, Names(engines))
	}
	return selected, nil
}

// ByName returns an engine of All, or nil.
func ByName(name string) *engine.Engine {
	for _, e := range All {
		if e.Name == name {
			return e
		}
	}
	return nil
}

// Names returns the names of engines, separated by commas.
func Names(engines []*engine.Engine) string {
	names := make([]string, len(engines))
	for i, e := range engines {
		names[i] = e.Name
	}
	return strings.Join(names, ",")
}
