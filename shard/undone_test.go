package shard

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// P7: a delete is never undone and an overwritten value never returns, through any order of writes,
// compactions of any segments, crashes and reopens. And what keeps old values away goes once there are
// none.

// trial is a store of one shard, with what is to be in it, and what was done to it.
type trial struct {
	*lone
	parent string
	keys   []string
	want   map[string]string // what a reader is to find
	values int               // made so far; no two are alike
	steps  []string
}

var trialMasks = map[string]uint64{"own hashes": allHashes, "one hash": 0}

func newTrial(t testing.TB, mask uint64, keys ...string) *trial {
	parent := loneDir(t)
	dir, err := os.MkdirTemp(parent, "store-")
	require.NoError(t, err)
	l := &lone{t: t, dir: dir, mask: mask, listed: make([]Listed, 1)}
	require.NoError(t, l.open())
	return &trial{lone: l, parent: parent, keys: keys, want: map[string]string{}}
}

// start empties the trial: a store as if nothing had happened.
func (r *trial) start() {
	r.remove()
	require.NoError(r.t, os.Mkdir(r.dir, 0o755))
	r.listed = make([]Listed, 1)
	require.NoError(r.t, r.open())
	r.want, r.steps = map[string]string{}, nil
}

func (r *trial) step(format string, args ...any) {
	r.steps = append(r.steps, fmt.Sprintf(format, args...))
}

// what is said when something is wrong.
func (r *trial) what() string { return strings.Join(r.steps, ", ") }

// write makes one of the writes that a letter stands for: P puts, D deletes, X puts what has expired.
func (r *trial) write(letter byte, key string) {
	r.step("%c %s", letter, key)
	r.values++
	value := fmt.Sprintf("%s.%d", key, r.values)
	switch letter {
	case 'P':
		r.put(0, key, value, 0)
		r.want[key] = value
	case 'X':
		r.put(0, key, value, 1)
		delete(r.want, key)
	case 'D':
		r.lone.delete(0, key)
		delete(r.want, key)
	}
}

// batch puts one key and deletes another in one batch.
func (r *trial) batch(key, gone string) {
	r.step("batch P %s D %s", key, gone)
	r.values++
	value := fmt.Sprintf("%s.%d", key, r.values)
	ops := []Op{{Key: []byte(key), Value: []byte(value), Hash: r.hash([]byte(key))}}
	if gone != key {
		ops = append(ops, Op{Key: []byte(gone), Hash: r.hash([]byte(gone)), Delete: true})
		delete(r.want, gone)
	}
	_, err := Apply([]Part{{Shard: r.shards[0], Ops: ops}})
	require.NoError(r.t, err, r.what())
	r.want[key] = value
}

func (r *trial) compactChosen(chosen uint64) {
	r.step("compact %b of %d", chosen, len(r.sealed(0)))
	_, err := r.compact(0, chosen)
	require.NoError(r.t, err, r.what())
}

func (r *trial) compactAll() Compacted {
	r.step("compact all")
	done, err := r.shards[0].Compact(context.Background(), func(int64) {})
	require.NoError(r.t, err, r.what())
	return done
}

// crash goes on with a copy of the files as a process that dies now leaves them.
func (r *trial) crash(without ...string) {
	r.step("crash without %v", without)
	r.rest()
	next, err := r.image().without(without...).restore(r.t, r.parent, r.mask)
	require.NoError(r.t, err, r.what())
	r.remove()
	r.lone = next
}

// check compares the store, its files, and copies that are opened, with what is wanted.
func (r *trial) check(copies bool) {
	r.rest()
	requireTrial(r.t, r.lone, r.keys, r.want, r.what())
	newest := map[string]onDisk{}
	for _, rec := range r.records(0) {
		if rec.kind != kindBatch && rec.seq > newest[string(rec.key)].seq {
			newest[string(rec.key)] = rec
		}
	}
	for _, key := range r.keys {
		rec, value := newest[key], ""
		if rec.kind == kindPut && rec.expiry == 0 {
			value = string(rec.value)
		}
		require.Equal(r.t, r.want[key], value, "the newest record of %s in the files: %s", key, r.what())
	}
	if !copies {
		return
	}
	im := r.image()
	for _, without := range [][]string{{}, {HintExt}, {SavedExt, HintExt}} {
		other, err := im.without(without...).restore(r.t, r.parent, r.mask)
		require.NoError(r.t, err, r.what())
		requireTrial(r.t, other, r.keys, r.want, fmt.Sprintf("%s, and a copy without %v", r.what(), without))
		require.Empty(r.t, other.report[0].Cuts, r.what())
		other.remove()
	}
}

// requireTrial reads a store by key and as a whole.
func requireTrial(t testing.TB, l *lone, keys []string, want map[string]string, what string) {
	for _, key := range keys {
		value, ok, err := l.get(0, key)
		_, there := want[key]
		if err != nil || ok != there || value != want[key] {
			require.NoError(t, err, "%s: %s", key, what)
			require.Equal(t, want[key], value, "%s: %s", key, what)
			require.Equal(t, there, ok, "%s: %s", key, what)
		}
	}
	frozen, err := Freeze(l.shards)
	require.NoError(t, err)
	found := map[string]string{}
	require.NoError(t, frozen[0].Scan(context.Background(), nil, func(e Entry) error {
		found[string(e.Key)] = string(e.Value)
		return nil
	}), what)
	require.Equal(t, want, found, what)
	require.GreaterOrEqual(t, l.shards[0].Len(), len(want), what)
}

// end compacts until there is nothing left to do, and fails unless the files have what is live and
// nothing else.
func (r *trial) end() {
	r.compactAll()
	if r.mask != allHashes {
		// A live record with the hash of a delete keeps it, as long as they are in different segments.
		r.seal(0)
		r.compactChosen(^uint64(0))
	}
	r.check(true)
	live := 0
	for _, rec := range r.records(0) {
		require.EqualValues(r.t, kindPut, rec.kind, "a record of %q stays for ever: %s", rec.key, r.what())
		require.Zero(r.t, rec.expiry, r.what())
		require.Equal(r.t, r.want[string(rec.key)], string(rec.value), r.what())
		live++
	}
	require.Equal(r.t, len(r.want), live, r.what())
	require.Equal(r.t, len(r.want), r.shards[0].Len(), r.what())
}

// TestCompactionOrders: some writes, each in a segment of its own; then two compactions, each of any of the
// segments there are; after each, the store is right, opened again or not.
func TestCompactionOrders(t *testing.T) {
	requireProbes(t, "recovery: a record was read to tell which of two is newer")
	const writes, letters = 4, "PDXp" // p puts another key
	rng := loneRand(t)
	for name, mask := range trialMasks {
		t.Run(name, func(t *testing.T) {
			r := newTrial(t, mask, "a", "b")
			defer r.remove()
			total := 0
			for n := range 1 << (2 * writes) {
				for first := uint64(1); first < 1<<writes; first++ {
					for second := uint64(1); second < 1<<writes; second++ {
						if loneSize(rng.IntN(300) != 0, false) {
							continue
						}
						total++
						r.start()
						for i := range writes {
							letter := letters[n>>(2*i)&3]
							if letter == 'p' {
								r.write('P', "b")
							} else {
								r.write(letter, "a")
							}
							r.seal(0)
						}
						r.compactChosen(first)
						r.check(true)
						r.compactChosen(second)
						r.check(true)
						r.end()
					}
				}
			}
			t.Logf("%d orders", total)
		})
	}
}

// trialSteps are what the random trials do.
var trialSteps = []func(r *trial, rng *rand.Rand){
	func(r *trial, rng *rand.Rand) { r.write('P', r.key(rng)) },
	func(r *trial, rng *rand.Rand) { r.write('P', r.key(rng)) },
	func(r *trial, rng *rand.Rand) { r.write('D', r.key(rng)) },
	func(r *trial, rng *rand.Rand) { r.write('X', r.key(rng)) },
	func(r *trial, rng *rand.Rand) { r.batch(r.key(rng), r.key(rng)) },
	func(r *trial, _ *rand.Rand) { r.step("seal"); r.seal(0) },
	func(r *trial, rng *rand.Rand) { r.compactChosen(1 << rng.IntN(max(1, len(r.sealed(0))))) },
	func(r *trial, rng *rand.Rand) { r.compactChosen(rng.Uint64()) },
	func(r *trial, rng *rand.Rand) { r.compactChosen(rng.Uint64() | rng.Uint64()) },
	func(r *trial, _ *rand.Rand) { r.compactAll() },
	func(r *trial, _ *rand.Rand) { r.crash() },
	func(r *trial, _ *rand.Rand) { r.crash(HintExt, SavedExt) },
	func(r *trial, _ *rand.Rand) { r.step("reopen"); r.reopen() },
}

func (r *trial) key(rng *rand.Rand) string { return r.keys[rng.IntN(len(r.keys))] }

// TestCompactionInShortTrials makes every kind of step in any order, few of them. Each write has a segment
// of its own, so that any of them may be compacted.
func TestCompactionInShortTrials(t *testing.T) {
	rng := loneRand(t)
	for name, mask := range trialMasks {
		t.Run(name, func(t *testing.T) {
			r := newTrial(t, mask, "a", "b")
			defer r.remove()
			for range loneSize(200, 100_000) {
				r.start()
				for range 6 {
					trialSteps[rng.IntN(len(trialSteps))](r, rng)
					r.seal(0)
					r.check(false)
				}
				r.check(true)
				r.end()
			}
		})
	}
}

// TestCompactionInLongTrials makes many steps, in segments that fill up by themselves.
func TestCompactionInLongTrials(t *testing.T) {
	rng := loneRand(t)
	for name, mask := range trialMasks {
		t.Run(name, func(t *testing.T) {
			r := newTrial(t, mask, "a", "b", "c", "d")
			defer r.remove()
			for range loneSize(4, 400) {
				r.start()
				for i := range 150 {
					trialSteps[rng.IntN(len(trialSteps))](r, rng)
					r.check(i%10 == 0)
				}
				r.end()
			}
		})
	}
}

// TestCompactionThatFails: a compaction that ends early, at any moment, leaves all as it was.
func TestCompactionThatFails(t *testing.T) {
	r := newTrial(t, allHashes, "a", "b", "c")
	defer r.remove()
	for _, key := range r.keys {
		for range 3 {
			r.write('P', key)
			r.seal(0)
		}
	}
	r.write('D', "b")
	r.seal(0)
	before := r.records(0)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := r.shards[0].Compact(ctx, func(int64) {})
	require.ErrorIs(t, err, context.Canceled)
	r.check(true)
	failure := errors.New("no manifest")
	r.shards[0].cfg.Replace = func(_, _ []uint64, _ uint64) error { return failure }
	_, err = r.shards[0].Compact(context.Background(), func(int64) {})
	require.ErrorIs(t, err, failure)
	r.check(true)
	require.Equal(t, before, r.records(0))
	require.Len(t, r.image().segments(), len(r.listed[0].Segments), "the output is gone")
	r.reopen()
	r.end()
}

// segments lists the segment files.
func (im image) segments() (names []string) {
	for name := range im.files {
		if strings.HasSuffix(name, SegmentExt) {
			names = append(names, name)
		}
	}
	return names
}
