package driver

import (
	"fmt"

	"github.com/freyjadb/freyja/benchmarks/engine"
	"github.com/freyjadb/freyja/benchmarks/workload"
)

// Client does single operations for a load that is not one of Run's, and checks what it reads as Run does. It is for one
// goroutine.
type Client struct {
	r     *reader
	w     *writer
	check func(value []byte) error // of View

	batcher      engine.BatchWriter // nil: the store has none
	keys, values [][]byte           // of PutBatch
}

// NewClient returns a client of a store that holds data.
func NewClient(store engine.Store, data Data, seed uint64) *Client {
	c := &Client{r: newReader(store, data, seed), w: newWriter(store, data, seed+1)}
	c.batcher, _ = store.(engine.BatchWriter)
	c.check = func(value []byte) error {
		if len(value) != c.r.size || workload.ValueTag(value) != c.r.tag {
			return c.r.wrong(c.r.key, value, true, nil)
		}
		return nil
	}
	return c
}

// Next draws a number of data's distribution.
func (c *Client) Next() uint64 { return c.r.gen.Next() }

// NextRank draws a rank: see workload.Generator.NextRank.
func (c *Client) NextRank() uint64 { return c.r.gen.NextRank() }

// Read reads the value of a number that is there.
func (c *Client) Read(number uint64) error {
	tag := workload.PutKey(c.r.key, number)
	value, found, err := c.r.store.AppendGet(c.r.dst[:0], c.r.key)
	if err != nil || !found || len(value) != c.r.size || workload.ValueTag(value) != tag {
		return c.r.wrong(c.r.key, value, found, err)
	}
	return nil
}

// View is Read without a copy. The store must be an engine.Viewer.
func (c *Client) View(number uint64) error {
	c.r.tag = workload.PutKey(c.r.key, number)
	found, err := c.r.viewer.View(c.r.key, c.check)
	if err != nil || !found {
		return c.r.wrong(c.r.key, nil, found, err)
	}
	return nil
}

// firstMissing is the lowest number that no data set reaches, nor what is inserted into one.
const firstMissing = 1 << 48

// Missing looks for a number that is not there, another one for each argument.
func (c *Client) Missing(number uint64) error {
	workload.PutKey(c.r.key, firstMissing+number)
	value, found, err := c.r.store.AppendGet(c.r.dst[:0], c.r.key)
	if err != nil {
		return c.r.wrong(c.r.key, value, found, err)
	}
	if found {
		return fmt.Errorf("key %x was never written and has the value %.32x", c.r.key, value)
	}
	return nil
}

// Put stores a value that the number has not had yet from this client.
func (c *Client) Put(number uint64) error { return c.w.put(number, c.w.puts+1) }

// PutBatch stores values of numbers in one call. The store must be an engine.BatchWriter.
func (c *Client) PutBatch(numbers []uint64) error {
	for len(c.keys) < len(numbers) {
		c.keys = append(c.keys, make([]byte, workload.KeySize))
		c.values = append(c.values, make([]byte, c.r.size))
	}
	for i, number := range numbers {
		c.w.puts++
		c.w.values.Put(c.values[i], workload.PutKey(c.keys[i], number), c.w.puts)
	}
	if err := c.batcher.PutBatch(c.keys[:len(numbers)], c.values[:len(numbers)]); err != nil {
		return fmt.Errorf("batch of %d puts: %w", len(numbers), err)
	}
	return nil
}
