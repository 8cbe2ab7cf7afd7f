package main

import (
	"encoding/binary"
	"math/bits"
)

// The constants of XXH64, the hash that routes keys to shards and finds them in the index.
const (
	prime1 uint64 = 11400714785074694791
	prime2 uint64 = 14029467366897019727
	prime3 uint64 = 1609587929392839161
	prime4 uint64 = 9650029242287828579
	prime5 uint64 = 2870177450012600261
)

// inverse is the number that an odd n times is 1, modulo 2^64, by Newton's iteration.
func inverse(n uint64) uint64 {
	x := n
	for range 6 {
		x *= 2 - n*x
	}
	return x
}

// collidingKey is a key of 16 bytes that begins with head and has the hash that is asked for: XXH64 can be
// run backwards. It is not forgery that this is for, but to have many keys of one hash without a seam in
// the store: they share a shard, a fingerprint and a chain of slots, and only their bytes tell them apart.
func collidingKey(head [8]byte, hash uint64) []byte {
	first := binary.LittleEndian.Uint64(head[:])
	h := prime5 + 16
	h = bits.RotateLeft64(h^bits.RotateLeft64(first*prime2, 31)*prime1, 27)*prime1 + prime4

	end := hash
	end ^= end >> 32
	end *= inverse(prime3)
	end ^= end>>29 ^ end>>58
	end *= inverse(prime2)
	end ^= end >> 33

	lane := bits.RotateLeft64((end-prime4)*inverse(prime1), -27) ^ h
	second := bits.RotateLeft64(lane*inverse(prime1), -31) * inverse(prime2)
	return binary.LittleEndian.AppendUint64(head[:8:8], second)
}
