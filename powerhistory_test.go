package freyja

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// What a store that survived a power failure is compared with: the history of each shard's writes, how much
// of it was promised, and how much had been begun.

// powerHistory is what was written to a store since some moment, by shard.
type powerHistory struct {
	mu       sync.Mutex
	base     []map[string]string // by shard: what there was at that moment, and is on disk
	logs     [][]powerEntry      // by shard, in the order of its log; guarded by mu
	returned []int               // by shard: of how many entries the call has returned; guarded by mu
	promised []int               // by shard: how many entries a power failure must leave; guarded by mu
	batches  int                 // guarded by mu
}

// powerEntry is one write of its own, or a shard's part of a batch.
type powerEntry struct {
	batch  int // 0: a write of its own
	writes []powerWrite
	idle   bool // a part that changes nothing: it deletes keys that are absent
}

type powerWrite struct {
	key   string
	value []byte // nil: a delete
}

func newPowerHistory(base []map[string]string) *powerHistory {
	n := len(base)
	return &powerHistory{base: base, logs: make([][]powerEntry, n), returned: make([]int, n), promised: make([]int, n)}
}

// begin enters what is about to be written, by shard. One goroutine at a time begins and ends writes of a shard.
// idle are the shards in which a batch changes nothing. It returns how long the logs of the shards are with it.
func (h *powerHistory) begin(parts map[int][]powerWrite, batch bool, idle map[int]bool) (ends map[int]int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	number := 0
	if batch {
		h.batches++
		number = h.batches
	}
	ends = map[int]int{}
	for s, writes := range parts {
		h.logs[s] = append(h.logs[s], powerEntry{number, writes, idle[s]})
		ends[s] = len(h.logs[s])
	}
	return ends
}

// end says that the call has returned nil, and whether that was a promise.
func (h *powerHistory) end(ends map[int]int, promise bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s, n := range ends {
		h.returned[s] = n
		if promise {
			h.promised[s] = max(h.promised[s], n)
		}
	}
}

// undo takes out again what begin entered last.
func (h *powerHistory) undo(ends map[int]int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s, n := range ends {
		h.logs[s] = h.logs[s][:n-1]
	}
}

// syncing returns what to call if the sync that is about to begin succeeds.
func (h *powerHistory) syncing() (synced func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	covered := slices.Clone(h.returned)
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		for s, n := range covered {
			h.promised[s] = max(h.promised[s], n)
		}
	}
}

// powerSpan is what a failure at some moment may leave: of each shard at least and at most so many entries.
type powerSpan struct{ least, most []int }

// promisedNow and begunNow are the two ends of a span, each asked for at its own side of the moment.
func (h *powerHistory) promisedNow() []int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.promised)
}

func (h *powerHistory) returnedNow() []int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.returned)
}

func (h *powerHistory) begunNow() []int {
	h.mu.Lock()
	defer h.mu.Unlock()
	begun := make([]int, len(h.logs))
	for s, log := range h.logs {
		begun[s] = len(log)
	}
	return begun
}

// explain finds for each shard how many entries of its log make what was found in it: a number within the
// span, such that every batch is in all its logs or in none. If there are several, it is the largest. It returns
// an error if there is none.
func (h *powerHistory) explain(found []map[string]string, span powerSpan) ([]int, error) {
	h.mu.Lock()
	logs := slices.Clone(h.logs)
	h.mu.Unlock()
	fits := make([][]bool, len(logs))
	for s, log := range logs {
		fits[s] = prefixesLike(h.base[s], log[:span.most[s]], found[s])
		if !slices.Contains(fits[s], true) {
			return nil, fmt.Errorf("shard %d has what it never had: %v", s, h.nearest(s, span, found[s]))
		}
		for n := range min(span.least[s], len(fits[s])) {
			fits[s][n] = false
		}
		if !slices.Contains(fits[s], true) {
			return nil, fmt.Errorf("shard %d has lost what was promised, up to entry %d: %v", s, span.least[s], h.nearest(s, span, found[s]))
		}
	}
	return wholeBatches(logs, span, fits)
}

// nearest says how what was found differs from the least that was to be.
func (h *powerHistory) nearest(s int, span powerSpan, found map[string]string) []string {
	state := maps.Clone(h.base[s])
	for _, e := range h.logs[s][:span.least[s]] {
		e.applyTo(state)
	}
	return differences(state, found)
}

func (e powerEntry) applyTo(state map[string]string) {
	for _, w := range e.writes {
		if w.value == nil {
			delete(state, w.key)
		} else {
			state[w.key] = string(w.value)
		}
	}
}

// prefixesLike says for each number of entries whether that many make what was found.
func prefixesLike(base map[string]string, log []powerEntry, found map[string]string) []bool {
	state := maps.Clone(base)
	wrong := len(differences(found, state))
	differs := func(key string) int {
		have, ok := state[key]
		want, there := found[key]
		if ok != there || have != want {
			return 1
		}
		return 0
	}
	fits := []bool{wrong == 0}
	for _, e := range log {
		for _, w := range e.writes {
			wrong -= differs(w.key)
			powerEntry{writes: []powerWrite{w}}.applyTo(state)
			wrong += differs(w.key)
		}
		fits = append(fits, wrong == 0)
	}
	return fits
}

// wholeBatches takes the numbers out of fits with which a batch would be in one log and not in another. A batch demands
// that the parts that change something are in together or out together. If they are in, the logs of its idle parts must
// reach the place of these: the batch relies on the deletes in front of it. But such a log may go on behind that
// place without the batch, as nothing there relies on a part that changes nothing. The larger of two answers is
// an answer, shard by shard, so the largest numbers that are left go together (and so do the smallest).
func wholeBatches(logs [][]powerEntry, span powerSpan, fits [][]bool) ([]int, error) {
	parts := map[int]map[int]int{} // batch, shard: entries up to its part
	idle := map[[2]int]bool{}      // batch, shard
	for s, log := range logs {
		for i, e := range log[:span.most[s]] {
			if e.batch > 0 {
				if parts[e.batch] == nil {
					parts[e.batch] = map[int]int{}
				}
				parts[e.batch][s] = i + 1
				idle[[2]int{e.batch, s}] = e.idle
			}
		}
	}
	for changed := true; changed; {
		changed = false
		for number, part := range parts {
			in, out := false, false // it must be
			for s, n := range part {
				in = in || !idle[[2]int{number, s}] && !slices.Contains(fits[s][:n], true)
				out = out || !slices.Contains(fits[s][n:], true)
			}
			if in && out {
				return nil, fmt.Errorf("batch %d is there in part: %v", number, part)
			}
			for s, n := range part {
				if in {
					changed = clearAny(fits[s][:n]) || changed
				}
				if out && !idle[[2]int{number, s}] {
					changed = clearAny(fits[s][n:]) || changed
				}
			}
		}
	}
	largest := make([]int, len(fits))
	for s := range fits {
		for n, ok := range fits[s] {
			if ok {
				largest[s] = n
			}
		}
	}
	return largest, nil
}

// clearAny clears fits, and reports whether there was anything to clear.
func clearAny(fits []bool) bool {
	there := slices.Contains(fits, true)
	clear(fits)
	return there
}

// states is what the shards have after so many entries.
func (h *powerHistory) states(entries []int) []map[string]string {
	h.mu.Lock()
	defer h.mu.Unlock()
	states := make([]map[string]string, len(entries))
	for s, n := range entries {
		states[s] = maps.Clone(h.base[s])
		for _, e := range h.logs[s][:n] {
			e.applyTo(states[s])
		}
	}
	return states
}

// cut ends the history after so many entries of each log: it goes on from there, so many of them promised.
func (h *powerHistory) cut(entries, promised []int) *powerHistory {
	h.mu.Lock()
	defer h.mu.Unlock()
	next := newPowerHistory(h.base)
	next.batches = h.batches
	next.promised = slices.Clone(promised)
	for s, n := range entries {
		next.logs[s] = slices.Clone(h.logs[s][:n])
		next.returned[s] = n
	}
	return next
}

// text is the history as a person may read it.
func (h *powerHistory) text(span powerSpan) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var b bytes.Buffer
	for s, log := range h.logs {
		fmt.Fprintf(&b, "shard %d: at least %d, at most %d of %d entries, after %d keys\n", s, span.least[s], span.most[s], len(log), len(h.base[s]))
		for i, e := range log {
			fmt.Fprintf(&b, "%6d", i+1)
			if e.batch > 0 {
				fmt.Fprintf(&b, " batch %d", e.batch)
			}
			for _, w := range e.writes {
				if w.value == nil {
					fmt.Fprintf(&b, " delete %.20q", w.key)
				} else {
					fmt.Fprintf(&b, " put %.20q %.12q (%d bytes)", w.key, w.value, len(w.value))
				}
			}
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// TestHistoryOfIdleParts: a batch that is there needs what its idle part relies on, and a log may go on behind an idle part
// without the batch.
func TestHistoryOfIdleParts(t *testing.T) {
	put := func(key string) powerWrite { return powerWrite{key, []byte(key)} }
	h := newPowerHistory([]map[string]string{{}, {"b": "b"}})
	h.begin(map[int][]powerWrite{1: {{key: "b"}}}, false, nil)
	h.begin(map[int][]powerWrite{0: {put("a")}, 1: {{key: "b"}}}, true, map[int]bool{1: true})
	h.begin(map[int][]powerWrite{1: {put("c")}}, false, nil)
	span := powerSpan{least: []int{0, 0}, most: h.begunNow()}

	entries, err := h.explain([]map[string]string{{}, {"c": "c"}}, span)
	require.NoError(t, err, "the log of the idle part goes on without the batch")
	require.Equal(t, []int{0, 3}, entries)
	entries, err = h.explain([]map[string]string{{"a": "a"}, {}}, span)
	require.NoError(t, err)
	require.Equal(t, []int{1, 2}, entries, "the batch is there, and what it relies on")
	_, err = h.explain([]map[string]string{{"a": "a"}, {"b": "b"}}, span)
	require.ErrorContains(t, err, "batch 1 is there in part", "the delete that the batch relies on is gone")
}
