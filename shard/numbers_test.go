package shard

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestNumbersComeBack takes far more numbers than there are, and lets go of some, now and then.
func TestNumbersComeBack(t *testing.T) {
	var n numbers
	taken := map[uint64]*tenancy{}
	for i := range uint64(20 * maxSegments) {
		tenant, err := n.take(forCompaction, 0)
		require.NoError(t, err)
		require.Less(t, tenant.number, uint64(maxSegments))
		require.NotContains(t, taken, tenant.number, "a number that somebody has was given out again")
		taken[tenant.number] = tenant
		if i%7 == 0 || len(taken) == maxSegments {
			for number := range taken { // about half of them
				if number%2 == i%2 {
					delete(taken, number)
				}
			}
		}
	}
	for len(taken) < maxSegments {
		tenant, err := n.take(forCompaction, 0)
		require.NoError(t, err)
		taken[tenant.number] = tenant
	}
	_, err := n.take(forCompaction, 0)
	require.ErrorIs(t, err, ErrFull)
	for number := range taken {
		require.Equal(t, number, taken[number].number)
	}
}
