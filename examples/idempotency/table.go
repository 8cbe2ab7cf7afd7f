package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/freyjadb/freyja"
)

var (
	// errUnderWay: another request with the key is being worked on, or its worker died and the deadline has not passed.
	errUnderWay = errors.New("a request with this key is under way")
	// errOtherRequest: the key was used for a request that says something else.
	errOtherRequest = errors.New("the key belongs to another request")
	// errTakenOver: the work took longer than its claim, and somebody else has begun it again.
	errTakenOver = errors.New("the work outlived its claim, which another took over")
)

const prefix = "idempotency/"

// record is what the table has under a key: a claim, and later the result.
type record struct {
	Request  string    // what the request says, to tell another one with the same key
	Owner    string    // makes the bytes of each claim unlike those of all others, for CompareAndSwap
	Deadline time.Time // of a claim: when another may take it over
	Done     bool
	Result   result
}

// result is the answer to a request.
type result struct {
	Status int
	Body   string
}

// table is the idempotency table. A record goes through these states, each step one atomic operation on its key:
//
//	absent  -> claim    PutIfAbsent: one of all who ask does the work
//	claim   -> result   CompareAndSwap from the bytes of the claim: only who still has it
//	claim   -> absent   CompareAndSwap: the work failed, a repeat may try again at once
//	claim   -> claim    CompareAndSwap after the deadline: its owner is dead, or too late
//	result  -> absent   expiry
//
// Only PutTTL writes a record that expires, and it has no condition. So the expiry of a result is written in a second step,
// by who wrote the result, when nobody else changes the record any more. A crash between the two leaves a result that never
// expires, and one before leaves a claim; if no client comes back for it, it would stay for ever. Sweep sees to both.
type table struct {
	db                *freyja.DB
	claimFor, keepFor time.Duration
	now               func() time.Time
}

func newTable(db *freyja.DB, claimFor, keepFor time.Duration) *table {
	return &table{db: db, claimFor: claimFor, keepFor: keepFor, now: time.Now}
}

// do returns the result of the request with this key: of work, if nobody has begun it, and otherwise what was stored.
// Work gets a context that ends at the claim's deadline, and must end with it. If it returns an error, nothing is stored
// and the next request tries again; so an error must mean that it did nothing, or that it may be done once more.
func (t *table) do(ctx context.Context, key, request string, work func(context.Context) (result, error)) (result, error) {
	mine := record{Request: request, Owner: rand.Text(), Deadline: t.now().Add(t.claimFor)}
	claim, err := json.Marshal(mine)
	if err != nil {
		return result{}, err
	}
	found, claimed, err := t.claim([]byte(prefix+key), request, claim)
	if err != nil || !claimed {
		return found, err
	}
	ctx, cancel := context.WithTimeout(ctx, mine.Deadline.Sub(t.now()))
	defer cancel()
	made, err := work(ctx)
	if err != nil {
		// If this fails as well, the deadline will do.
		_, releaseErr := t.db.CompareAndSwap([]byte(prefix+key), claim, nil)
		return result{}, errors.Join(err, releaseErr)
	}
	mine.Done, mine.Result = true, made
	return made, t.finish([]byte(prefix+key), claim, mine)
}

// claim makes the record of key the caller's claim and returns true. If the work was done already it returns the result.
func (t *table) claim(key []byte, request string, claim []byte) (done result, claimed bool, err error) {
	for {
		if claimed, err := t.db.PutIfAbsent(key, claim); err != nil || claimed {
			return result{}, claimed, err
		}
		raw, err := t.db.Get(key)
		if errors.Is(err, freyja.ErrKeyNotFound) {
			continue // released or expired since
		}
		if err != nil {
			return result{}, false, err
		}
		var found record
		if err := json.Unmarshal(raw, &found); err != nil {
			return result{}, false, fmt.Errorf("record of %q: %w", key, err)
		}
		switch {
		case found.Request != request:
			return result{}, false, errOtherRequest
		case found.Done:
			// Get may see a result a moment before it is on disk, and a machine that died then would have told what it
			// does not know any more. PutIfAbsent waits for the record that it finds. (It stores if that has just expired.)
			claimed, err := t.db.PutIfAbsent(key, claim)
			if err != nil || claimed {
				return result{}, claimed, err
			}
			return found.Result, false, nil
		case t.now().Before(found.Deadline):
			// After a restart the owner is known to be dead: the store has one process. What it asked of others may
			// be under way all the same, so the deadline counts here, too.
			return result{}, false, errUnderWay
		}
		if claimed, err := t.db.CompareAndSwap(key, raw, claim); err != nil || claimed {
			return result{}, claimed, err
		}
	}
}

// finish replaces the claim by the result.
func (t *table) finish(key, claim []byte, done record) error {
	raw, err := json.Marshal(done)
	if err != nil {
		return err
	}
	swapped, err := t.db.CompareAndSwap(key, claim, raw)
	if err != nil {
		return err
	}
	if !swapped {
		return errTakenOver
	}
	return t.db.PutTTL(key, raw, t.keepFor)
}

// sweep removes claims whose deadline passed more than keepFor ago, and gives results an expiry that have none. It reads the
// whole store and is for the time before the first request: beside others its PutTTL could overwrite.
func (t *table) sweep() error {
	return t.db.Scan([]byte(prefix), func(key, raw []byte) error {
		var found record
		if err := json.Unmarshal(raw, &found); err != nil {
			return fmt.Errorf("record of %q: %w", key, err)
		}
		if !found.Done {
			if t.now().Sub(found.Deadline) < t.keepFor {
				return nil
			}
			return t.db.Delete(key)
		}
		// Scan does not say when a record expires.
		version, err := t.db.Version(key)
		switch {
		case errors.Is(err, freyja.ErrKeyNotFound):
			return nil // expired meanwhile
		case err != nil:
			return err
		case version.Expiry() != 0:
			return nil
		}
		return t.db.PutTTL(key, raw, t.keepFor)
	})
}
