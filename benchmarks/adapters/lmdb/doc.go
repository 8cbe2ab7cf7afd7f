// Package lmdb is a thin binding of LMDB, as much of it as a comparison needs: one table of pairs, single and batched
// writes, reads, and a scan. It is built with the tag lmdb and over LMDB's C library (Debian's liblmdb-dev); without the tag
// the package is empty.
//
// # Writes
//
// LMDB's write lock belongs to a thread, and a goroutine may change threads between two calls into C. Each write is
// therefore a single call, which begins and commits its transaction; the lock makes writers take turns.
//
// # Reads
//
// With MDB_NOTLS a read transaction belongs to whoever holds it. An Env keeps reset ones in slots, and each
// read takes one, renews it, so that it sees the last commit, and puts it back reset. Renewing and resetting take no
// lock. A read with a copy is one call into C; one that shows the value in place is two.
package lmdb
