package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/freyjadb/freyja"
)

// banker moves money between its accounts, by batches across shards. In every snapshot, after every crash and in
// every copy of the store, the sum is what it was, and no batch is there in part (space.judgeBank).
type banker struct {
	*worker
	number, first int
	balance       []uint64
	batch         []write
}

func newBanker(number int) role {
	return func(w *worker) error {
		b := &banker{worker: w, number: number, first: w.space.firstAccount(number)}
		if err := b.loadBalances(); err != nil {
			return err
		}
		for w.goOn() {
			if err := b.transfer(); err != nil {
				return err
			}
		}
		return nil
	}
}

// entry of this banker in the ledger.
func (b *banker) entry() int { return b.space.owned() + b.number }

// loadBalances reads what its accounts have. The check after opening has found that to be right.
func (b *banker) loadBalances() error {
	b.balance = make([]uint64, b.space.life.Accounts)
	for n := range b.balance {
		value, err := b.db.Get(b.space.keys[b.first+n])
		if errors.Is(err, freyja.ErrKeyNotFound) {
			continue
		}
		if err != nil {
			return b.fault(opGet, err)
		}
		a, err := b.space.openAccount(b.first+n, value)
		if err != nil {
			return err
		}
		b.balance[n] = a.balance
	}
	return nil
}

// transfer makes one batch.
func (b *banker) transfer() error {
	if b.budget.Load() < 0 {
		time.Sleep(5 * time.Millisecond)
	}
	number := b.ledger.landed(b.entry()).Load() + 1
	next := append([]uint64(nil), b.balance...)
	partners := b.move(next, number)
	b.batch = b.batch[:0]
	for _, n := range partners {
		w := write{key: b.space.keys[b.first+n]}
		if next[n] > 0 {
			w.value = b.space.accountBytes(nil, b.first+n, accountValue{batch: number, balance: next[n], partners: partners})
		}
		b.batch = append(b.batch, w)
	}
	b.ledger.begun(b.entry()).Store(number)
	slot := b.begin(opApply, b.first+partners[0], number)
	err := b.db.Apply(b.batch)
	b.ring.end(slot, now(), result(err))
	return b.finish(err, next, len(partners))
}

// move changes balances, and says which: those of a few accounts, or all. The first batch fills them.
func (b *banker) move(balance []uint64, number uint64) (partners []int) {
	if number == 1 {
		for n := range balance {
			balance[n] = startBalance
			partners = append(partners, n)
		}
		return partners
	}
	sum := uint64(0)
	most := min(6, len(balance)-1)
	if b.random.IntN(3) == 0 {
		most = len(balance) - 1
	}
	for _, n := range b.random.Perm(len(balance))[:2+b.random.IntN(most)] {
		partners = append(partners, n)
		sum += balance[n]
		balance[n] = 0
	}
	if sum == 0 { // bring in one that has money, so that the batch puts something
		for n := range balance {
			if balance[n] > 0 {
				partners = append(partners, n)
				sum, balance[n] = balance[n], 0
				break
			}
		}
	}
	for _, n := range partners[1:] {
		balance[n] = b.random.Uint64N(sum + 1)
		if b.random.IntN(4) == 0 {
			balance[n] = 0
		}
		sum -= balance[n]
	}
	balance[partners[0]] += sum
	return partners
}

// finish enters what became of a batch.
func (b *banker) finish(err error, next []uint64, keys int) error {
	b.did(opApply)
	for _, w := range b.batch {
		b.budget.Add(-int64(len(w.value)) - 64)
	}
	landed, begun := b.ledger.landed(b.entry()), b.ledger.begun(b.entry())
	switch {
	case err == nil:
		landed.Store(begun.Load())
		b.balance = next
		b.tally[countAcked] += uint64(keys)
		return nil
	case errors.Is(err, freyja.ErrFull):
		begun.Store(landed.Load())
		b.tally[countRefused]++
		time.Sleep(time.Millisecond)
		return nil
	case errors.Is(err, freyja.ErrClosed) && b.plan.Durability != freyja.Always:
		begun.Store(landed.Load())
	}
	return b.fault(opApply, err)
}

// settleBank wants what a store holds, of which c was read when nothing was being written, to be what the
// ledger says. A batch that was in flight when the process was killed may be there or not.
func (s *session) settleBank(c *contents, banker int) error {
	entry := s.space.owned() + banker
	low, high := s.ledger.landed(entry).Load(), s.ledger.begun(entry).Load()
	newest, err := s.space.judgeBank(c, banker, low, high)
	if err != nil {
		return fmt.Errorf("acknowledged %d, begun %d: %w", low, high, err)
	}
	s.ledger.settle(entry, newest)
	return nil
}
