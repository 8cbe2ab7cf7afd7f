package freyja

import (
	"context"
	"time"

	"github.com/stretchr/testify/require"
)

// What a model program does with batches, and compaction.

var batchOperations = map[string]func(p *program){
	"Apply":      func(p *program) { p.apply(12) },
	"ApplySmall": func(p *program) { p.apply(3) },
	"Compact":    (*program).compact,
}

// batchWrite is one write of a batch in the reference's words.
type batchWrite struct {
	key, value []byte // value nil: a delete
	expires    bool   // at once
}

// drawBatch makes a batch of up to most writes; about every other is of the key of one before it.
func (p *program) drawBatch(most int) (*Batch, []batchWrite) {
	b := NewBatch()
	if p.choose(4, "used before") == 0 {
		b.Put([]byte("of another life"), nil)
		b.Reset()
	}
	writes := make([]batchWrite, p.choose(most+1, "writes"))
	size := 0
	for i := range writes {
		w := &writes[i]
		if w.key = p.key(); i > 0 && p.choose(2, "key again") == 1 {
			w.key = writes[p.choose(i, "of write")].key
		}
		kind := p.choose(8, "kind of write")
		if kind < 6 {
			w.value = p.value()
		}
		switch {
		case kind >= 6:
			b.Delete(w.key)
		case kind == 5:
			w.expires = true
			b.PutTTL(w.key, w.value, time.Nanosecond)
		case kind == 4:
			b.PutTTL(w.key, w.value, time.Hour)
		default:
			b.Put(w.key, w.value)
		}
		size += len(w.key) + len(w.value)
	}
	require.Equal(p, len(writes), b.Len())
	require.Equal(p, size, b.Size())
	return b, writes
}

// apply applies a batch, and at times again.
func (p *program) apply(most int) {
	b, writes := p.drawBatch(most)
	for times := 1 + p.choose(5, "times")/4; times > 0; times-- {
		require.NoError(p, p.db.Apply(b))
		waitPast(time.Now().UnixNano())
		p.applied(writes)
		for _, w := range writes {
			p.checkKey(w.key)
		}
	}
	if p.choose(6, "refused") > 0 {
		return
	}
	want := ErrInvalidOptions
	if p.choose(2, "for its key") == 0 {
		b.PutTTL(p.key(), p.value(), 0)
	} else {
		want = ErrInvalidKey
		b.Delete(nil)
	}
	require.ErrorIs(p, p.db.Apply(b), want)
	for _, w := range writes {
		p.checkKey(w.key)
	}
}

// applied makes the writes of a batch in the reference: of several writes to one key the last. The
// heads that the store puts in front of them do not count.
func (p *program) applied(writes []batchWrite) {
	last := map[string]int{}
	for i, w := range writes {
		last[string(w.key)] = i
	}
	for i, w := range writes {
		switch {
		case last[string(w.key)] != i:
		case w.value == nil:
			p.ref.replace(w.key, nil)
		default:
			p.ref.put(w.key, w.value, w.expires)
		}
	}
}

// compact leaves nothing that is dead, unless keys collide: then a delete may have to stay for the sake of
// another key's record.
func (p *program) compact() {
	_, err := p.db.Compact(context.Background())
	require.NoError(p, err)
	p.ref.compacted()
	p.checkCounts()
	if !p.opts.useHashMask && p.opts.DisableAutoCompact {
		require.Zero(p, p.db.Usage().DeadBytes)
	}
	p.checkContents(p.db, p.ref)
	again, err := p.db.Compact(context.Background())
	require.NoError(p, err)
	if p.opts.DisableAutoCompact {
		require.Zero(p, again.BytesReclaimed, "%+v", again)
	}
}
