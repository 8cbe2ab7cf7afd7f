package shard

import (
	"runtime/debug"

	"github.com/freyjadb/freyja/internal/goid"
)

// Calls from the functions of callers.
//
// The function of an Update runs under the writer mutex of its shard, the progress function of Compact under compactMu.
// If such a function calls the store again and that call needs the same mutex, the goroutine waits for itself and
// never returns. So a shard notes which goroutine runs such a function, and the call is refused with ErrDeadlock.
//
// Who looks, and when:
//
//   - A write looks only if the flag of the fault guard was set when it began: the store sets it before it calls
//     any function, so a write outside of all such functions pays nothing. Then the write looks at all shards of the
//     store. It is refused in the function of an Update of any of them: whether two keys share a shard is nothing that a
//     caller can see, and to wait for a second mutex while holding a first could deadlock with another goroutine.
//   - A write that finds the mutex taken looks whether its own goroutine has it, in case the function cleared the flag.
//   - What takes long anyway looks each time: Snapshot, Sync, Verify, Compact, Close (package freyja), Freeze, Apply.
//   - Counts and Usage need no mutex in the goroutine that has it. Of the other shards of the store they leave out those
//     whose mutex is taken: an Apply may have it that waits for the mutex of the Update.
//
// Only the goroutine itself is found. One that such a function starts and waits for, or that iter.Pull runs for it,
// waits for the mutex as everybody does, and the function for it.

// inUpdate reports whether the calling goroutine runs the function of an Update, of this shard or of another one
// of its store.
func (s *Shard) inUpdate() bool {
	return s.InUpdate() || s.cfg.InUpdate != nil && s.cfg.InUpdate()
}

// InUpdate reports whether the calling goroutine runs the function of an Update of this shard. Cost: a load.
func (s *Shard) InUpdate() bool { return s.updater.Load() == goid.Current() }

// InCompact reports whether the calling goroutine runs the progress function of a Compact of this shard. Cost: a load.
func (s *Shard) InCompact() bool { return s.compactor.Load() == goid.Current() }

// lockHere takes the writer mutex for a call of a caller, and counts having had to wait for it. guard is what the
// flag of the fault guard was before. Error: ErrDeadlock.
func (s *Shard) lockHere(guard bool) error {
	if guard && s.inUpdate() {
		return ErrDeadlock
	}
	if s.mu.TryLock() {
		return nil
	}
	if s.InUpdate() {
		return ErrDeadlock
	}
	s.waitForMutex()
	return nil
}

// lockToLook takes the writer mutex, unless the calling goroutine has it, and returns the function that gives it back. ok is
// false if the goroutine has that of another shard, and so must not wait for this one, and it is taken.
func (s *Shard) lockToLook() (unlock func(), ok bool) {
	switch {
	case s.InUpdate():
		return func() {}, true
	case guardSet() && s.inUpdate():
		return s.mu.Unlock, s.mu.TryLock()
	}
	s.mu.Lock()
	return s.mu.Unlock, true
}

// callUpdate calls the function of an Update, and notes which goroutine runs it. Holds mu.
func (s *Shard) callUpdate(fn func(old []byte) ([]byte, error), old []byte) ([]byte, error) {
	s.updater.Store(goid.Current())
	defer s.updater.Store(0) // also if fn panics or ends its goroutine
	value, err := fn(old)
	rearm()
	return value, err
}

// guardSet reports whether the flag of the fault guard is set in the calling goroutine.
func guardSet() bool {
	set := debug.SetPanicOnFault(true)
	debug.SetPanicOnFault(set)
	return set
}

// checkBatchCaller refuses a batch as lockHere refuses a write.
func checkBatchCaller(parts []Part) error {
	for i := range parts {
		if parts[i].Shard.InUpdate() {
			return ErrDeadlock
		}
	}
	if len(parts) > 0 && guardSet() && parts[0].Shard.inUpdate() {
		return ErrDeadlock
	}
	return nil
}
