package freyja

import (
	"bytes"
	"errors"
	"iter"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
)

// What a model program does with snapshots and scans.

// instant is a snapshot with what the reference was when it was taken.
type instant struct {
	*Snapshot
	ref *reference
}

const mostSnapshots = 4

var snapshotOperations = map[string]func(p *program){
	"Snapshot": func(p *program) {
		if len(p.snapshots) == mostSnapshots {
			p.closeSnapshot(p.choose(mostSnapshots, "snapshot"))
		}
		s, err := p.db.Snapshot()
		require.NoError(p, err)
		p.snapshots = append(p.snapshots, instant{s, p.ref.clone()})
		require.Positive(p, p.db.Usage().Snapshots)
	},
	"SnapshotOfExpiring": (*program).snapshotOfExpiring,
	"SnapshotCheck": func(p *program) {
		for _, s := range p.snapshots {
			p.checkContents(s, s.ref)
		}
	},
	"SnapshotClose": func(p *program) {
		if len(p.snapshots) > 0 {
			p.closeSnapshot(p.choose(len(p.snapshots), "snapshot"))
		}
	},
	"Scan":       func(p *program) { p.scan(p.db, p.ref) },
	"ScanWrites": (*program).scanWrites,
	"SnapshotScan": func(p *program) {
		if len(p.snapshots) > 0 {
			s := p.snapshots[p.choose(len(p.snapshots), "snapshot")]
			p.scan(s, s.ref)
		}
	},
}

// closeSnapshot compares a snapshot once more and closes it.
func (p *program) closeSnapshot(i int) {
	s := p.snapshots[i]
	p.snapshots = append(p.snapshots[:i:i], p.snapshots[i+1:]...)
	p.checkContents(s, s.ref)
	require.NoError(p, s.Close())
	require.NoError(p, s.Close())
	_, err := s.Get(programKeys[0])
	require.ErrorIs(p, err, ErrClosed)
	require.ErrorIs(p, s.Scan(nil, func(_, _ []byte) error { return nil }), ErrClosed)
	require.Zero(p, s.Len())
}

// snapshotOfExpiring takes a snapshot while a key has not expired yet, in which it stays.
func (p *program) snapshotOfExpiring() {
	if len(p.snapshots) == mostSnapshots {
		p.closeSnapshot(0)
	}
	const ttl = time.Millisecond
	key, value := p.key(), p.value()
	before := time.Now()
	require.NoError(p, p.db.PutTTL(key, value, ttl))
	after := time.Now().UnixNano()
	s, err := p.db.Snapshot()
	require.NoError(p, err)
	inTime := time.Since(before) < ttl
	p.ref.put(key, value, false)
	then := p.ref.clone()
	waitPast(after + int64(ttl))
	p.ref.enter(key, value, true)
	if !inTime {
		require.NoError(p, s.Close())
		return
	}
	p.snapshots = append(p.snapshots, instant{s, then})
	p.checkKey(key)
	got, err := s.Get(key)
	require.NoError(p, err)
	require.True(p, bytes.Equal(value, got))
}

// contents is what can be asked of a store and of a snapshot alike.
type contents interface {
	Get(key []byte) ([]byte, error)
	AppendGet(dst, key []byte) ([]byte, error)
	View(key []byte, fn func(value []byte) error) error
	GetMany(keys [][]byte, fn func(i int, value []byte, ok bool) error) error
	Has(key []byte) (bool, error)
	Len() int
	Scan(prefix []byte, fn func(key, value []byte) error) error
	All() iter.Seq2[[]byte, []byte]
}

// checkContents compares what c gives in every way with the reference.
func (p *program) checkContents(c contents, ref *reference) {
	for _, key := range programKeys {
		p.checkOne(c, ref, key)
	}
	require.NoError(p, c.GetMany(programKeys, func(i int, value []byte, ok bool) error {
		want := ref.get(programKeys[i])
		require.Equal(p, want != nil, ok, "key %q", programKeys[i])
		require.True(p, bytes.Equal(want, value), "key %q", programKeys[i])
		return nil
	}))
	least, most := ref.keys()
	requireWithin(p, least, most, c.Len(), "keys, expired ones included")
	require.Equal(p, ref.live(), p.scanned(c, nil))
	all := map[string]string{}
	for key, value := range c.All() {
		require.NotContains(p, all, string(key))
		all[string(key)] = string(value)
	}
	require.Equal(p, ref.live(), all)
}

// checkOne compares what c has for one key.
func (p *program) checkOne(c contents, ref *reference, key []byte) {
	want := ref.get(key)
	got, err := c.Get(key)
	more, errMore := c.AppendGet([]byte("+"), key)
	viewed := []byte(nil)
	errView := c.View(key, func(value []byte) error { viewed = append([]byte{}, value...); return nil })
	has, errHas := c.Has(key)
	require.NoError(p, errHas)
	require.Equal(p, want != nil, has, "key %q", key)
	require.Equal(p, "+"+string(want), string(more), "key %q", key)
	for _, err := range []error{err, errMore, errView} {
		if want == nil {
			require.ErrorIs(p, err, ErrKeyNotFound, "key %q", key)
		} else {
			require.NoError(p, err, "key %q", key)
		}
	}
	require.Equal(p, want, got, "key %q", key)
	require.Equal(p, want, viewed, "key %q", key)
}

// scanned is what a scan meets; no key twice.
func (p *program) scanned(c contents, prefix []byte) map[string]string {
	found := map[string]string{}
	require.NoError(p, c.Scan(prefix, func(key, value []byte) error {
		require.NotContains(p, found, string(key), "a key is met twice")
		found[string(key)] = string(value)
		return nil
	}))
	return found
}

// scan compares scans over part of the keys, and scans that stop early.
func (p *program) scan(c contents, ref *reference) {
	prefix := p.key()
	prefix = prefix[:p.choose(min(len(prefix), 5)+1, "length of prefix")]
	want := map[string]string{}
	for key, value := range ref.live() {
		if strings.HasPrefix(key, string(prefix)) {
			want[key] = value
		}
	}
	require.Equal(p, want, p.scanned(c, prefix))
	if len(want) == 0 {
		return
	}
	stop, stopAt := errors.New("stop"), 1+p.choose(len(want), "stops at")
	met := 0
	err := c.Scan(prefix, func(key, value []byte) error {
		require.Equal(p, want[string(key)], string(value))
		if met++; met == stopAt {
			return stop
		}
		return nil
	})
	require.Equal(p, stop, err, "the function's error as it is")
	require.Equal(p, stopAt, met)
	met = 0
	for key, value := range c.All() {
		require.True(p, bytes.Equal(ref.get(key), value))
		if met++; met == stopAt {
			break
		}
	}
	require.Equal(p, stopAt, met)
}

// scanWrites writes to the store while it is scanned, which the scan does not see.
func (p *program) scanWrites() {
	then := p.ref.clone()
	found := map[string]string{}
	require.NoError(p, p.db.Scan(nil, func(key, value []byte) error {
		found[string(key)] = string(value)
		switch other := p.key(); p.choose(4, "write") {
		case 0:
			fresh := p.value()
			require.NoError(p, p.db.Put(other, fresh))
			p.ref.put(other, fresh, false)
		case 1:
			require.NoError(p, p.db.Delete(other))
			p.ref.replace(other, nil)
		}
		return nil
	}))
	require.Equal(p, then.live(), found)
}
