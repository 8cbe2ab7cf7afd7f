package main

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"time"
)

// contents is all that a store, a snapshot or a copy of a store has, by number of the key. Snapshots
// are compared with it again and again.
type contents struct {
	there    []bool
	version  []uint64 // of owned and shared keys; 0 for an empty value
	digest   []digest
	accounts []accountValue // by account
	keys     int
}

// digest tells values apart.
type digest struct {
	size int
	crc  uint32
}

func digestOf(value []byte) digest { return digest{len(value), crc32.Checksum(value, castagnoli)} }

// scanner calls fn for every key and value there is.
type scanner func(fn func(key, value []byte) error) error

// gather reads all that scan gives. Each value must be one of its key, and no key come twice or be unknown.
func (sp *space) gather(scan scanner) (*contents, error) {
	c := &contents{
		there: make([]bool, len(sp.keys)), version: make([]uint64, len(sp.keys)), digest: make([]digest, len(sp.keys)),
		accounts: make([]accountValue, sp.accounts()),
	}
	err := scan(func(key, value []byte) error {
		i, ok := sp.number[string(key)]
		if !ok {
			return fmt.Errorf("a scan has the key %q, which nobody put", key)
		}
		if c.there[i] {
			return fmt.Errorf("a scan has %s twice", sp.describe(i))
		}
		c.there[i], c.digest[i] = true, digestOf(value)
		c.keys++
		return c.enter(sp, i, value)
	})
	return c, err
}

// enter keeps what value says.
func (c *contents) enter(sp *space, i int, value []byte) (err error) {
	if sp.kind(i) == account {
		c.accounts[i-sp.owned()], err = sp.openAccount(i, value)
		return err
	}
	c.version[i], err = sp.open(i, value)
	return err
}

// judge compares contents that have been there at one instant with the bounds of that instant. Only kinds
// of keys that a scan was to give are looked at.
func (sp *space) judgeContents(c *contents, low, high []uint64, prefix string) error {
	if prefix == "" || prefix == string(owned) {
		for i := range sp.owned() {
			if err := sp.judgeVersion(i, low[i], high[i], c.there[i], c.version[i], c.digest[i].size); err != nil {
				return err
			}
		}
	}
	if prefix == "" || prefix == string(account) {
		for b := range sp.life.Bankers {
			if _, err := sp.judgeBank(c, b, low[sp.owned()+b], high[sp.owned()+b]); err != nil {
				return err
			}
		}
	}
	return nil
}

// judgeExpiry compares the keys that expire with when they do, if they were looked at from one moment to
// another and have the versions that the ledger says.
func (sp *space) judgeExpiry(l *ledger, i int, there bool, from, to time.Time) error {
	if !sp.expires(i) || sp.look(i, l.landed(i).Load()).absent {
		return nil
	}
	earliest, latest := l.expiry(i)
	switch {
	case there && from.UnixNano() > int64(latest.Load()):
		return fmt.Errorf("%s is there at %d and expired at %d", sp.describe(i), from.UnixNano(), latest.Load())
	case !there && to.UnixNano() < int64(earliest.Load()):
		return fmt.Errorf("%s is absent at %d and does not expire before %d", sp.describe(i), to.UnixNano(), earliest.Load())
	}
	return nil
}

// accountValue is the value of an account. An account without money is absent.
type accountValue struct {
	batch    uint64 // number of the batch that put it
	balance  uint64
	partners []int // accounts (counted within the banker's) that the batch wrote to
}

// startBalance is what each account has in the beginning.
const startBalance = 1000

// accountBytes appends the value of account i:
//
//	offset width
//	     0     4  CRC-32C of everything behind it
//	     4     4  number of the key
//	     8     8  batch
//	    16     8  balance
//	    24     2  number of partners
//	    26  2*n  partners
//	     …     m  filler
func (sp *space) accountBytes(dst []byte, i int, v accountValue) []byte {
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(i))
	dst = binary.LittleEndian.AppendUint64(dst, v.batch)
	dst = binary.LittleEndian.AppendUint64(dst, v.balance)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(v.partners)))
	for _, p := range v.partners {
		dst = binary.LittleEndian.AppendUint16(dst, uint16(p))
	}
	dst = append(dst, sp.filler[:mix(v.batch^uint64(i))%uint64(min(sp.life.MaxValue, 600))]...)
	return seal(dst, start)
}

// openAccount checks the value of account i and takes it apart.
func (sp *space) openAccount(i int, value []byte) (v accountValue, err error) {
	if _, err := sp.open(i, value); err != nil {
		return v, err
	}
	if len(value) < 26 {
		return v, fmt.Errorf("the value of account %s has %d bytes", sp.describe(i), len(value))
	}
	v.batch, v.balance = binary.LittleEndian.Uint64(value[8:]), binary.LittleEndian.Uint64(value[16:])
	n := int(binary.LittleEndian.Uint16(value[24:]))
	if len(value) < 26+2*n {
		return v, fmt.Errorf("the value of account %s has %d bytes and %d partners", sp.describe(i), len(value), n)
	}
	for p := range n {
		v.partners = append(v.partners, int(binary.LittleEndian.Uint16(value[26+2*p:])))
	}
	return v, nil
}

// judgeBank looks at a banker's accounts at one instant, at which the newest batch was one from low to
// high. The newest batch there is must be one of those, no batch may be there in part, and no money may
// have come or gone. It returns the number of the newest batch.
func (sp *space) judgeBank(c *contents, banker int, low, high uint64) (newest uint64, err error) {
	first := sp.firstAccount(banker)
	mine := c.accounts[first-sp.owned():][:sp.life.Accounts]
	sum := uint64(0)
	for n, a := range mine {
		newest = max(newest, a.batch)
		sum += a.balance
		if c.there[first+n] && a.balance == 0 {
			return newest, fmt.Errorf("account %s is there without money", sp.describe(first+n))
		}
	}
	if newest < low || newest > high {
		return newest, fmt.Errorf("the newest batch of banker %d is %d, not %d to %d", banker, newest, low, high)
	}
	for n, a := range mine {
		for _, p := range a.partners {
			// The batch wrote the partner too, so what that has now is from it or newer. Gone: a
			// newer one may have taken its money, and the sum tells if none did.
			if c.there[first+p] && mine[p].batch < a.batch {
				return newest, fmt.Errorf("batch %d is torn: account %s has it, and %s has batch %d", a.batch,
					sp.describe(first+n), sp.describe(first+p), mine[p].batch)
			}
		}
	}
	if newest > 0 && sum != startBalance*uint64(sp.life.Accounts) {
		return newest, fmt.Errorf("banker %d has %d in all accounts at batch %d, not %d: a batch is torn", banker, sum, newest, startBalance*sp.life.Accounts)
	}
	return newest, nil
}
