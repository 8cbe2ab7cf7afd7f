package mmapio

import (
	"errors"
	"os"
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"
)

//go:noinline
func guardedLoad(b []byte, i int) (v byte, err error) {
	defer Catch(&err, debug.SetPanicOnFault(true))
	return b[i], nil
}

//go:noinline
func guardedStore(b []byte, i int) (err error) {
	defer Catch(&err, debug.SetPanicOnFault(true))
	b[i] = 1
	return nil
}

//go:noinline
func guardedCall(f func()) (err error) {
	defer Catch(&err, debug.SetPanicOnFault(true))
	f()
	return nil
}

// faultFlag returns the goroutine's setting and leaves it.
func faultFlag() bool {
	flag := debug.SetPanicOnFault(false)
	debug.SetPanicOnFault(flag)
	return flag
}

// truncated returns a file of four pages of which somebody else has left one and a bit.
func truncated(t *testing.T) *File {
	t.Helper()
	if !canTrimMapped {
		t.Skip("a mapped file cannot be truncated here")
	}
	f := create(t, folder(t), "a", 4*pageSize)
	f.Bytes()[3] = 42
	require.NoError(t, os.Truncate(f.Path(), pageSize+10))
	return f
}

func TestFaultInTruncatedFileIsAnError(t *testing.T) {
	f := truncated(t)
	v, err := guardedLoad(f.Mapping().Bytes(), 3)
	require.NoError(t, err)
	require.EqualValues(t, 42, v)

	at := int(2*pageSize + 123)
	for range 3 { // again: nothing is left behind by the first
		_, err = guardedLoad(f.Mapping().Bytes(), at)
		var fault *FaultError
		require.ErrorAs(t, err, &fault)
		require.Equal(t, &FaultError{Path: f.Path(), Offset: int64(at), Err: ErrTruncated}, fault)
		require.ErrorIs(t, err, ErrTruncated)
		require.ErrorContains(t, err, `access "`+f.Path()+`" at offset `)
		require.False(t, faultFlag())
	}
	require.ErrorIs(t, guardedStore(f.Bytes(), int(3*pageSize)), ErrTruncated, "the writer's stores too")
	runtime.KeepAlive(f)
}

func TestFaultInBulkCopyIsAnError(t *testing.T) {
	f := truncated(t)
	err := guardedCall(func() { _ = append([]byte(nil), f.Mapping().Bytes()...) })
	var fault *FaultError
	require.ErrorAs(t, err, &fault)
	require.GreaterOrEqual(t, fault.Offset, 2*pageSize)
	require.Less(t, fault.Offset, 4*pageSize)
	require.ErrorIs(t, err, ErrTruncated)
	runtime.KeepAlive(f)
}

func TestFaultNotByTruncationIsIOError(t *testing.T) {
	f := truncated(t)
	require.NoError(t, os.Remove(f.Path()))
	_, err := guardedLoad(f.Mapping().Bytes(), int(2*pageSize))
	require.ErrorIs(t, err, ErrIO)
	require.NotErrorIs(t, err, ErrTruncated)

	require.NoError(t, os.WriteFile(f.Path(), make([]byte, 4*pageSize), 0o600)) // long enough
	_, err = guardedLoad(f.Mapping().Bytes(), int(2*pageSize))
	require.ErrorIs(t, err, ErrIO)
	runtime.KeepAlive(f)
}

func TestRecoveredInALiteral(t *testing.T) {
	f := truncated(t)
	err := func() (err error) {
		old := debug.SetPanicOnFault(true)
		defer func() {
			debug.SetPanicOnFault(old)
			if r := recover(); r != nil {
				err = Recovered(r)
			}
		}()
		f.Mapping().Bytes()[3*pageSize]++
		return nil
	}()
	require.ErrorIs(t, err, ErrTruncated)
	runtime.KeepAlive(f)
}

// panicOf runs f and returns what it panicked with.
func panicOf(f func()) (r any) {
	defer func() { r = recover() }()
	f()
	return nil
}

func TestOtherPanicsGoOn(t *testing.T) {
	own := &struct{ name string }{"the caller's own"}
	require.Same(t, own, panicOf(func() { guardedCall(func() { panic(own) }) }))
	require.False(t, faultFlag(), "put back on this way out too")

	failure := errors.New("an error")
	require.Same(t, failure, panicOf(func() { guardedCall(func() { panic(failure) }) }))

	var null *int
	r := panicOf(func() { guardedCall(func() { *null = 1 }) })
	require.Implements(t, (*runtime.Error)(nil), r)
	require.ErrorContains(t, r.(error), "nil pointer")

	r = panicOf(func() { guardedLoad(make([]byte, 3), 4) })
	require.ErrorContains(t, r.(error), "index out of range")

	r = panicOf(func() { guardedCall(func() { panic(nil) }) })
	require.IsType(t, (*runtime.PanicNilError)(nil), r)
}

// A guard that ends normally inside a deferred function must not swallow the panic that is under way.
func TestGuardDuringPanic(t *testing.T) {
	inner := errors.New("none yet")
	r := panicOf(func() {
		defer func() { inner = guardedCall(func() {}) }()
		panic("outer")
	})
	require.Equal(t, "outer", r)
	require.NoError(t, inner)

	f := truncated(t)
	r = panicOf(func() {
		defer func() { _, inner = guardedLoad(f.Mapping().Bytes(), int(3*pageSize)) }()
		panic("outer")
	})
	require.Equal(t, "outer", r)
	require.ErrorIs(t, inner, ErrTruncated)
	runtime.KeepAlive(f)
}

func TestGuardLetsGoexitThrough(t *testing.T) {
	done, returned := make(chan struct{}), false
	go func() {
		defer close(done)
		guardedCall(runtime.Goexit)
		returned = true
	}()
	<-done
	require.False(t, returned)
}

func TestGuardsNest(t *testing.T) {
	f := truncated(t)
	load := func() error {
		_, err := guardedLoad(f.Mapping().Bytes(), int(3*pageSize))
		return err
	}
	for _, outside := range []bool{false, true} {
		before := debug.SetPanicOnFault(outside)
		require.NoError(t, guardedCall(func() {
			require.ErrorIs(t, load(), ErrTruncated)
			require.True(t, faultFlag(), "still inside the outer guard")
			require.NoError(t, guardedCall(func() {}))
			require.True(t, faultFlag())
			require.ErrorIs(t, load(), ErrTruncated, "and it still guards")
		}))
		require.Equal(t, outside, faultFlag())
		debug.SetPanicOnFault(before)
	}
	runtime.KeepAlive(f)
}

func TestGuardDoesNotAllocate(t *testing.T) {
	b := make([]byte, 8)
	require.Zero(t, testing.AllocsPerRun(100, func() { guardedLoad(b, 1) }))
}

//go:noinline
func unguardedLoad(b []byte, i int) (v byte, err error) { return b[i], nil }

//go:noinline
func literalLoad(b []byte, i int) (v byte, err error) {
	old := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(old)
		if r := recover(); r != nil {
			err = Recovered(r)
		}
	}()
	return b[i], nil
}

// BenchmarkGuard is what the guard adds to a function that does nothing else.
func BenchmarkGuard(b *testing.B) {
	for _, shape := range []struct {
		name string
		load func([]byte, int) (byte, error)
	}{{"none", unguardedLoad}, {"catch", guardedLoad}, {"literal", literalLoad}} {
		b.Run("shape="+shape.name, func(b *testing.B) {
			data := make([]byte, 8)
			b.ReportAllocs()
			for b.Loop() {
				shape.load(data, 3)
			}
		})
	}
}
