package adapters

import (
	"bytes"
	"errors"
	"io"
	"slices"
)

// sortedOrder returns the positions of keys in the order of their bytes, equal ones in the order they have.
func sortedOrder(keys [][]byte) []int {
	order := make([]int, len(keys))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return bytes.Compare(keys[i], keys[j]) })
	return order
}

// closeAfter closes what could not be used because of err.
func closeAfter(err error, c io.Closer) error { return errors.Join(err, c.Close()) }
