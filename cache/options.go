package cache

import (
	"fmt"

	"github.com/freyjadb/freyja"
)

// DefaultMaxCost is the bound on memory where Options.MaxCost is 0: 64 MiB.
const DefaultMaxCost = 64 << 20

// Options are the settings of New. Only Decode must be set.
type Options[V any] struct {
	// MaxCost bounds the sum of the costs of the values in memory: bytes, unless Cost says otherwise. 0 stands for
	// DefaultMaxCost. The bound may be passed for the moment in which values replace smaller ones.
	MaxCost int64
	// Decode makes a value of the bytes that are stored under key. Raw is a copy that belongs to it: it may keep
	// it, whole or in part, in the value. Key is the caller's of Get and must be neither changed nor kept. It is called by
	// the goroutine that asked, several at a time for different keys. It may ask the same cache for other
	// keys, but no two values may need each other: their goroutines could wait for each other.
	Decode func(key, raw []byte) (V, error)
	// Encode makes bytes of a value for Put, which returns an error where it is nil. What Decode makes of them is what
	// Get returns.
	Encode func(V) ([]byte, error)
	// Cost is what a value takes of MaxCost: usually its size in memory in bytes, with all it refers to. It may
	// count in any other unit, such as 1 for each value. Less than 1 counts as 1. Where it is nil, the
	// cost is the size of key and stored bytes, that of V itself, and what the cache takes to keep them: right for
	// values that are about as large decoded as encoded.
	Cost func(V) int64
	// Items is about how many values will be in memory when it is full. It sizes what ristretto remembers of values that
	// were asked for, some 40 bytes an item. 0 stands for a guess from MaxCost: one for each KiB, at least 65,536 (or
	// MaxCost, if that is less).
	Items int64
}

// withDefaults returns the options with what is 0 filled in, or what is wrong with them.
func (o Options[V]) withDefaults() (Options[V], error) {
	switch {
	case o.Decode == nil:
		return o, fmt.Errorf("Options.Decode is nil: %w", freyja.ErrInvalidOptions)
	case o.MaxCost < 0:
		return o, fmt.Errorf("Options.MaxCost is %d, less than zero: %w", o.MaxCost, freyja.ErrInvalidOptions)
	case o.Items < 0 || o.Items > maxItems:
		return o, fmt.Errorf("Options.Items is %d, not in 0..%d: %w", o.Items, maxItems, freyja.ErrInvalidOptions)
	}
	if o.MaxCost == 0 {
		o.MaxCost = DefaultMaxCost
	}
	if o.Items == 0 {
		o.Items = min(o.MaxCost, max(o.MaxCost>>10, 1<<16), maxItems)
	}
	return o, nil
}

// maxItems is more than memory holds, and few enough for ristretto's counters to be allocated at all.
const maxItems = 1 << 30
