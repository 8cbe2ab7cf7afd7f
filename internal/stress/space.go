package main

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"time"
)

// space is all keys of a life, and what the value of each version of each key is. Everything in it
// follows from the life, so that every process and every goroutine knows every answer. Immutable.
//
// Keys are numbered: first the owned ones, owner by owner, then the accounts, banker by banker, then the
// shared ones. Names of the kinds begin with a letter each.
type space struct {
	life   life
	seed   uint64
	keys   [][]byte
	number map[string]int
	filler []byte
}

// kind of a key.
type kind byte

const (
	owned   kind = 'v' // one goroutine writes it, version after version
	account kind = 'b' // one goroutine writes it, in batches with others
	shared  kind = 's' // many goroutines write it
)

func newSpace(l life) *space {
	sp := &space{life: l, seed: mix(l.Seed ^ mix(uint64(l.Number))), number: map[string]int{}}
	sp.filler = make([]byte, 2*l.MaxValue+4096)
	r := source(sp.seed, 3)
	for i := range sp.filler {
		sp.filler[i] = byte(r.Uint32())
	}
	for i := range l.Owners*l.Keys + l.Bankers*l.Accounts + l.Shared {
		key := sp.name(i, r)
		sp.number[string(key)] = i
		sp.keys = append(sp.keys, key)
	}
	return sp
}

// name makes the name of key i: of all lengths, or with one of a few hashes.
func (sp *space) name(i int, r *rand.Rand) []byte {
	k := sp.kind(i)
	if n := sp.life.Collide; n > 0 {
		head := [8]byte{byte(k)}
		binary.LittleEndian.PutUint32(head[1:], uint32(i))
		return collidingKey(head, mix(sp.seed^uint64(i%n)))
	}
	key := fmt.Appendf(nil, "%c%d.", k, i)
	for range pick(r, 0, 0, 1, 5, 12, 30, 200) {
		key = append(key, byte('a'+r.IntN(26)))
	}
	return key
}

func (sp *space) owned() int    { return sp.life.Owners * sp.life.Keys }
func (sp *space) accounts() int { return sp.life.Bankers * sp.life.Accounts }

// firstAccount is the number of a banker's first account.
func (sp *space) firstAccount(banker int) int { return sp.owned() + banker*sp.life.Accounts }

// sharedKey is the number of the n-th shared key.
func (sp *space) sharedKey(n int) int { return sp.owned() + sp.accounts() + n }

func (sp *space) kind(i int) kind {
	switch {
	case i < sp.owned():
		return owned
	case i < sp.owned()+sp.accounts():
		return account
	}
	return shared
}

// expires reports whether an owned key's versions do: the last of each owner's keys.
func (sp *space) expires(i int) bool {
	return i < sp.owned() && i%sp.life.Keys >= sp.life.Keys-sp.life.TTLKeys
}

// expiring is how many keys do.
func (sp *space) expiring() int { return sp.life.Owners * sp.life.TTLKeys }

// look is what a version of a key is.
type look struct {
	absent bool
	size   int // bytes of the value: 0, or enough to say which it is
	ttl    time.Duration
}

const (
	stampSize = 16
	forever   = math.MaxInt64 // an expiry that never comes
)

// look says what a version of an owned key is. Version 0 is from before the first write.
func (sp *space) look(i int, version uint64) look {
	h := mix(sp.seed ^ mix(uint64(i)<<40^version))
	if version == 0 || h%100 < 18 {
		return look{absent: true}
	}
	l := look{size: sp.sizeOf(h)}
	if h%100 < 22 {
		l.size = 0
	}
	if sp.expires(i) {
		l.ttl = time.Millisecond + time.Duration(h>>16%300)*time.Millisecond
	}
	return l
}

// sizeOf draws a size by the bits of h: mostly small.
func (sp *space) sizeOf(h uint64) int {
	most := sp.life.MaxValue
	switch h >> 8 % 16 {
	case 0:
		return max(stampSize, int(h>>20)&0x7fffffff%most)
	case 1, 2, 3, 4:
		return stampSize + int(h>>20&0x7fffffff)%min(most, 1500)
	}
	return stampSize + int(h>>20&0x7fffffff)%min(most, 100)
}

// value appends the value of a version of an owned key, which must not be absent.
func (sp *space) value(dst []byte, i int, version uint64) []byte {
	return sp.stamp(dst, i, version, sp.look(i, version).size)
}

// sharedValue appends the value of a shared key that is known by id.
func (sp *space) sharedValue(dst []byte, i int, id uint64) []byte {
	return sp.stamp(dst, i, id, sp.sizeOf(mix(id)))
}

// stamp appends a value that says whose and which it is:
//
//	offset width
//	     0     4  CRC-32C of everything behind it
//	     4     4  number of the key
//	     8     8  version
//	    16     n  filler
func (sp *space) stamp(dst []byte, i int, version uint64, size int) []byte {
	if size < stampSize {
		return dst
	}
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(i))
	dst = binary.LittleEndian.AppendUint64(dst, version)
	from := mix(version^uint64(i)<<32) % uint64(len(sp.filler)-(size-stampSize))
	dst = append(dst, sp.filler[from:from+uint64(size-stampSize)]...)
	return seal(dst, start)
}

// seal puts the checksum in front of what was appended to dst since start.
func seal(dst []byte, start int) []byte {
	binary.LittleEndian.PutUint32(dst[start:], crc32.Checksum(dst[start+4:], castagnoli))
	return dst
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// open checks a stamped value of key i and returns its version; an empty value of an owned key has 0.
func (sp *space) open(i int, value []byte) (version uint64, err error) {
	switch {
	case len(value) == 0 && sp.kind(i) == owned:
		return 0, nil
	case len(value) < stampSize:
		return 0, fmt.Errorf("the value of %s has %d bytes: %x", sp.describe(i), len(value), value)
	case crc32.Checksum(value[4:], castagnoli) != binary.LittleEndian.Uint32(value):
		return 0, fmt.Errorf("the value of %s, %d bytes, does not verify: it begins %x", sp.describe(i), len(value), value[:stampSize])
	case binary.LittleEndian.Uint32(value[4:]) != uint32(i):
		return 0, fmt.Errorf("%s has the value of %s", sp.describe(i), sp.describe(int(binary.LittleEndian.Uint32(value[4:]))))
	}
	return binary.LittleEndian.Uint64(value[8:]), nil
}

// describe names key i in messages.
func (sp *space) describe(i int) string {
	if i < 0 || i >= len(sp.keys) {
		return fmt.Sprintf("key %d, which there is none", i)
	}
	return fmt.Sprintf("key %d (%.24q)", i, sp.keys[i])
}

// judge says what is wrong with what a read of an owned key gave, if at its moment the key had one of the
// versions from low to high. A key that expires may be absent too.
func (sp *space) judge(i int, low, high uint64, value []byte, there bool) (version uint64, err error) {
	if there {
		if version, err = sp.open(i, value); err != nil {
			return 0, err
		}
	}
	return version, sp.judgeVersion(i, low, high, there, version, len(value))
}

// judgeVersion is judge for a value that was opened, of which size bytes were seen.
func (sp *space) judgeVersion(i int, low, high uint64, there bool, version uint64, size int) error {
	if !there && sp.expires(i) {
		return nil
	}
	if there && version != 0 {
		l := sp.look(i, version)
		switch {
		case version < low || version > high:
			return fmt.Errorf("%s has version %d, not %d to %d", sp.describe(i), version, low, high)
		case l.absent || l.size != size:
			return fmt.Errorf("%s has version %d with %d bytes, which should be %+v", sp.describe(i), version, size, l)
		}
		return nil
	}
	for v := low; v <= high; v++ {
		if l := sp.look(i, v); l.absent == !there && (!there || l.size == 0) {
			return nil
		}
	}
	return fmt.Errorf("%s is %s, as none of its versions %d to %d is", sp.describe(i), presence(there), low, high)
}

func presence(there bool) string {
	if there {
		return "empty"
	}
	return "absent"
}

// mix spreads a number over 64 bits (SplitMix64).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
