package freyja

import "runtime/debug"

// meter adds up what was read and tells a caller's progress function. For one goroutine.
type meter struct {
	done, total int64 // bytes; total is an estimate and grows if it was too low
	progress    func(done, total int64)
}

// add notes that n more bytes were read.
func (m *meter) add(n int64) {
	m.done += n
	m.total = max(m.total, m.done)
	if m.progress == nil {
		return
	}
	guard := debug.SetPanicOnFault(true) // of whoever calls; progress may clear it
	m.progress(m.done, m.total)
	debug.SetPanicOnFault(guard)
}
