// What package lmdb calls: each function is one crossing from Go.

#include <lmdb.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
	int rc;
	size_t size;      // of the value
	const void *data; // the value, in the map
} freyja_value;

// freyja_open opens a folder. The environment is closed if it fails.
int freyja_open(const char *dir, size_t map_size, unsigned int readers, unsigned int flags, MDB_env **env, MDB_dbi *dbi);

// freyja_put stores a pair in a transaction of its own.
int freyja_put(MDB_env *env, MDB_dbi dbi, const void *key, size_t key_size, const void *value, size_t value_size);

// freyja_put_batch stores n pairs in one transaction. They lie in pairs one after the other: the sizes of key and
// value, 4 bytes each, then key and value.
int freyja_put_batch(MDB_env *env, MDB_dbi dbi, const void *pairs, size_t n);

// freyja_get renews txn and looks a key up. On success txn is in use until freyja_reset.
freyja_value freyja_get(MDB_txn *txn, MDB_dbi dbi, const void *key, size_t key_size);

// freyja_next looks a key up in a txn that is in use.
freyja_value freyja_next(MDB_txn *txn, MDB_dbi dbi, const void *key, size_t key_size);

// freyja_copy looks a key up in a transaction that it renews and resets, and copies the value to dst if it fits.
freyja_value freyja_copy(MDB_txn *txn, MDB_dbi dbi, const void *key, size_t key_size, void *dst, size_t room);

// freyja_scan moves a cursor over up to n pairs and returns how many there were in *got.
int freyja_scan(MDB_cursor *cursor, int first, MDB_val *keys, MDB_val *values, int n, int *got);
