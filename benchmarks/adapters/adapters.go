// Package adapters makes each store that is compared an engine.
//
// To add a store, implement engine.Store and as many of engine.Viewer, engine.Prober, engine.BatchReader and engine.Meter
// as it offers, and list it in All.
package adapters

import (
	"fmt"
	"strings"

	"github.com/freyjadb/freyja/benchmarks/engine"
)

// All lists the engines in the order of the tables.
var All = []*engine.Engine{None, Floor, Freyja, FreyjaMutex, RWMutexMap, SyncMap}

// Select returns the engines that names lists, separated by commas, in the order of All.
func Select(names string) ([]*engine.Engine, error) {
	wanted := make(map[string]bool)
	for name := range strings.SplitSeq(names, ",") {
		wanted[strings.TrimSpace(name)] = true
	}
	var selected []*engine.Engine
	for _, e := range All {
		if wanted[e.Name] {
			selected = append(selected, e)
			delete(wanted, e.Name)
		}
	}
	for name := range wanted {
		return nil, fmt.Errorf("engine %q is not one of %s", name, Names(All))
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
