package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/freyjadb/freyja"
)

// bank is what the service does all day: money moves between accounts, and none is made or lost.
type bank struct {
	db        *freyja.DB
	accounts  int
	pause     time.Duration // between two transfers
	transfers atomic.Int64
}

const opening = 1000 // what each account has at first

var accountsKey = []byte("accounts") // has the number of accounts

func accountKey(i int) []byte { return fmt.Appendf(nil, "account/%06d", i) }

// open sees to it that there are accounts: all of them, or those that the store has.
func (b *bank) open(accounts int) error {
	n, err := number(b.db.Get(accountsKey))
	if err == nil {
		b.accounts = n
		return nil
	}
	if !errors.Is(err, freyja.ErrKeyNotFound) {
		return err
	}
	batch := freyja.NewBatch()
	for i := range accounts {
		batch.Put(accountKey(i), strconv.AppendInt(nil, opening, 10))
	}
	batch.Put(accountsKey, strconv.AppendInt(nil, int64(accounts), 10))
	b.accounts = accounts
	return b.db.Apply(batch)
}

// moveMoney makes transfers until ctx ends. It is the only one who writes accounts: with several, each would have to keep others
// from what it has read until it has written, since a batch does not look at what it overwrites.
func (b *bank) moveMoney(ctx context.Context) error {
	batch := freyja.NewBatch()
	for ctx.Err() == nil {
		from := rand.IntN(b.accounts)
		to := (from + 1 + rand.IntN(b.accounts-1)) % b.accounts // another
		if err := b.move(batch, from, to); err != nil {
			return fmt.Errorf("transfer: %w", err)
		}
		b.transfers.Add(1)
		if err := (wallClock{}).Sleep(ctx, b.pause); err != nil {
			break // asked to end
		}
	}
	return nil
}

func (b *bank) move(batch *freyja.Batch, from, to int) error {
	has, err := number(b.db.Get(accountKey(from)))
	if err != nil {
		return err
	}
	gets, err := number(b.db.Get(accountKey(to)))
	if err != nil {
		return err
	}
	amount := rand.IntN(has + 1)
	batch.Reset()
	batch.Put(accountKey(from), strconv.AppendInt(nil, int64(has-amount), 10))
	batch.Put(accountKey(to), strconv.AppendInt(nil, int64(gets+amount), 10))
	return b.db.Apply(batch)
}

// checkAccounts counts the accounts and the money in a store.
func checkAccounts(db *freyja.DB) error {
	want, err := number(db.Get(accountsKey))
	if err != nil {
		return err
	}
	accounts, sum := 0, 0
	err = db.Scan([]byte("account/"), func(key, value []byte) error {
		has, err := number(value, nil)
		accounts, sum = accounts+1, sum+has
		return err
	})
	if err != nil {
		return err
	}
	if accounts != want || sum != want*opening {
		return fmt.Errorf("%d accounts with %d in all, where there should be %d with %d", accounts, sum, want, want*opening)
	}
	return nil
}

// number reads the value that a Get returned.
func number(value []byte, err error) (int, error) {
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(value))
}
