package probe

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestProbe(t *testing.T) {
	b, a := New("test: b"), New("test: a")
	require.Equal(t, []*Probe{a, b}, All(), "by name")
	require.Panics(t, func() { New("test: a") })
	a.Hit()
	var hit []*Probe
	Set(func(p *Probe) { hit = append(hit, p) })
	b.Hit()
	b.Hit()
	Set(nil)
	b.Hit()
	require.Equal(t, []*Probe{b, b}, hit)
	require.EqualValues(t, 1, a.Count())
	require.EqualValues(t, 3, b.Count())
	require.Equal(t, "test: b", b.Name())
}
