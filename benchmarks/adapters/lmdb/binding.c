//go:build lmdb

#include "binding.h"

#include <string.h>

int freyja_open(const char *dir, size_t map_size, unsigned int readers, unsigned int flags, MDB_env **env, MDB_dbi *dbi) {
	MDB_txn *txn = NULL;
	int rc = mdb_env_create(env);
	if (rc != 0) {
		return rc;
	}
	if ((rc = mdb_env_set_mapsize(*env, map_size)) != 0 || (rc = mdb_env_set_maxreaders(*env, readers)) != 0 ||
	    (rc = mdb_env_open(*env, dir, flags, 0644)) != 0 || (rc = mdb_txn_begin(*env, NULL, 0, &txn)) != 0) {
		mdb_env_close(*env);
		return rc;
	}
	if ((rc = mdb_dbi_open(txn, NULL, 0, dbi)) != 0) {
		mdb_txn_abort(txn);
	} else {
		rc = mdb_txn_commit(txn);
	}
	if (rc != 0) {
		mdb_env_close(*env);
	}
	return rc;
}

int freyja_put(MDB_env *env, MDB_dbi dbi, const void *key, size_t key_size, const void *value, size_t value_size) {
	MDB_val k = {key_size, (void *)key}, v = {value_size, (void *)value};
	MDB_txn *txn;
	int rc = mdb_txn_begin(env, NULL, 0, &txn);
	if (rc != 0) {
		return rc;
	}
	if ((rc = mdb_put(txn, dbi, &k, &v, 0)) != 0) {
		mdb_txn_abort(txn);
		return rc;
	}
	return mdb_txn_commit(txn);
}

int freyja_put_batch(MDB_env *env, MDB_dbi dbi, const void *pairs, size_t n) {
	const char *at = pairs;
	MDB_txn *txn;
	int rc = mdb_txn_begin(env, NULL, 0, &txn);
	if (rc != 0) {
		return rc;
	}
	for (; n > 0; n--) {
		uint32_t sizes[2];
		memcpy(sizes, at, sizeof sizes);
		at += sizeof sizes;
		MDB_val k = {sizes[0], (void *)at}, v = {sizes[1], (void *)(at + sizes[0])};
		if ((rc = mdb_put(txn, dbi, &k, &v, 0)) != 0) {
			mdb_txn_abort(txn);
			return rc;
		}
		at += sizes[0] + sizes[1];
	}
	return mdb_txn_commit(txn);
}

freyja_value freyja_next(MDB_txn *txn, MDB_dbi dbi, const void *key, size_t key_size) {
	MDB_val k = {key_size, (void *)key}, v = {0, NULL};
	freyja_value found;
	found.rc = mdb_get(txn, dbi, &k, &v);
	found.size = v.mv_size;
	found.data = v.mv_data;
	return found;
}

freyja_value freyja_get(MDB_txn *txn, MDB_dbi dbi, const void *key, size_t key_size) {
	freyja_value found = {0, 0, NULL};
	if ((found.rc = mdb_txn_renew(txn)) != 0) {
		return found;
	}
	found = freyja_next(txn, dbi, key, key_size);
	if (found.rc != 0) {
		mdb_txn_reset(txn);
	}
	return found;
}

freyja_value freyja_copy(MDB_txn *txn, MDB_dbi dbi, const void *key, size_t key_size, void *dst, size_t room) {
	freyja_value found = freyja_get(txn, dbi, key, key_size);
	if (found.rc == 0) {
		if (found.size <= room) {
			memcpy(dst, found.data, found.size);
		}
		mdb_txn_reset(txn);
	}
	found.data = NULL;
	return found;
}

int freyja_scan(MDB_cursor *cursor, int first, MDB_val *keys, MDB_val *values, int n, int *got) {
	for (*got = 0; *got < n; ++*got) {
		int rc = mdb_cursor_get(cursor, &keys[*got], &values[*got], first ? MDB_FIRST : MDB_NEXT);
		if (rc != 0) {
			return rc;
		}
		first = 0;
	}
	return 0;
}
