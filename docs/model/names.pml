/*
 * The names in a store's folder. The manifest is replaced by a rename and a sync of the folder;
 * segment files are made, listed, replaced by the output of a compaction, dropped and removed.
 * Each name is durable by itself when the folder was synced.
 *
 * Sizes: IDS segment files in all, K failures. FAILS: syncs of the folder may fail.
 * The environment variable WEAK names a rule that the run leaves out.
 */
#ifndef IDS
#define IDS 4
#endif
#ifndef K
#define K 2
#endif
#ifndef FAILS
#define FAILS 0
#endif
#define SET(id) (1 << (id))
#define NONE_OF(set) (255 - (set))
#define EVERY_ID (SET(IDS) - 1)

#define LIST_BEFORE_SYNC    1
#define REMOVE_BEFORE_SYNC  2
#define OPEN_WITHOUT_SYNC   3
#define RETRY_FOLDER_SYNC   4
#define OPEN_TRUSTS_CACHE   5
byte weak;

/* Sets of ids, in the page cache and on the disk. */
byte listc; byte listd;      /* what the manifest lists */
byte filec; byte filed;      /* the files that have a name */
bit liststuck; byte filestuck; /* names that a failed sync left clean in the cache, and not on disk */

#define READY    0
#define MAKE     1           /* the new file gets its name */
#define NAME     2           /* the folder is synced */
#define LIST     3           /* the manifest is renamed */
#define KEEP     4           /* the folder is synced */
#define REMOVE   5           /* files that are not listed any more are removed */
#define DEAD     6
#define SETTLE   7           /* Open has read the manifest; the folder is synced before files are removed */
#define CLEAN    8
#define READONLY 9
byte state;
byte failures;
byte ids;                    /* given out */
byte in;                     /* files that a change takes off the list */
byte out;                    /* the file that it adds */
byte i;

c_code {
/* The rule that this run leaves out. */
static int weak_rule(void) {
	const char *name = getenv("WEAK");
	if (!name || !*name) return 0;
#define RULE(rule) if (!strcmp(name, #rule)) return rule;
	RULE(LIST_BEFORE_SYNC) RULE(REMOVE_BEFORE_SYNC) RULE(OPEN_WITHOUT_SYNC) RULE(RETRY_FOLDER_SYNC) RULE(OPEN_TRUSTS_CACHE)
	fprintf(stderr, "no such rule: %s\n", name);
	exit(3);
}

static void sync_folder(void) {
	if (!now.liststuck) now.listd = now.listc;
	now.filed = (now.filed & now.filestuck) | (now.filec & ~now.filestuck);
}

/* None of the names that changed is on disk, and no later sync writes them. */
static void fail_folder(void) {
	now.liststuck |= now.listc != now.listd;
	now.filestuck |= now.filec ^ now.filed;
}

static void make_file(int set) { now.filec |= set; now.filestuck &= ~set; }
static void remove_file(int set) { now.filec &= ~set; now.filestuck &= ~set; }
static void replace_manifest(int list) { now.listc = list; now.liststuck = 0; }
}

inline first_of(set) { i = 0; do :: (((set) >> i) & 1) == 0 -> i++ :: else -> break od }

inline sync(next) {
	if
	:: c_code { sync_folder(); }; state = next
	:: FAILS -> c_code { fail_folder(); };
		state = (weak == RETRY_FOLDER_SYNC -> state : READONLY)
	fi
}

active proctype folder() {
	c_code { now.weak = weak_rule(); };
	do
	/* A roll, a compaction of some files, a file dropped. */
	:: atomic { state == READY && ids < IDS -> out = SET(ids); ids++; in = 0;
		i = 0;
		do
		:: i < IDS && ((listc >> i) & 1) -> if :: in = in | SET(i) :: skip fi; i++
		:: i < IDS && ((listc >> i) & 1) == 0 -> i++
		:: i == IDS -> break
		od;
		i = 0; state = MAKE }
	:: atomic { state == READY && listc != 0 -> i = 0;
		do :: i < IDS-1 -> i++ :: break od;
		if :: ((listc >> i) & 1) -> in = SET(i); out = 0; state = LIST :: else -> skip fi;
		i = 0 }
	:: atomic { state == MAKE -> c_code { make_file(now.out); };
		state = (weak == LIST_BEFORE_SYNC -> LIST : NAME) }
	:: atomic { state == NAME -> sync(LIST) }
	:: atomic { state == LIST -> c_code { replace_manifest((now.listc & ~now.in) | now.out); };
		state = (weak == REMOVE_BEFORE_SYNC -> REMOVE : KEEP) }
	:: atomic { state == KEEP -> sync(REMOVE) }
	:: atomic { state == REMOVE && (filec & in) != 0 -> first_of(filec & in); c_code { remove_file(1 << now.i); }; i = 0 }
	:: atomic { state == REMOVE && (filec & in) == 0 -> state = READY; in = 0; out = 0 }

	/* Failures, at any step: the process dies, or the machine does. */
	:: atomic { failures < K -> failures++; state = DEAD; in = 0; out = 0 }
	:: atomic { failures < K -> failures++; state = DEAD; in = 0; out = 0;
		if
		:: listc = listd
		:: !liststuck -> listd = listc
		fi;
		i = 0;
		do
		:: i < IDS && ((filec ^ filed) & SET(i)) == 0 -> i++
		:: i < IDS && ((filec ^ filed) & SET(i)) != 0 ->
			if
			:: filec = (filec & NONE_OF(SET(i))) | (filed & SET(i))
			:: (filestuck & SET(i)) == 0 -> filed = (filed & NONE_OF(SET(i))) | (filec & SET(i))
			fi;
			i++
		:: i == IDS -> break
		od;
		i = 0; liststuck = 0; filestuck = 0 }

	/* Open. */
	:: atomic { state == DEAD -> assert((listc & NONE_OF(filec)) == 0); /* the manifest lists a file that is missing */
		state = SETTLE }
	:: atomic { state == SETTLE && (filec & NONE_OF(listc) & EVERY_ID) == 0 -> state = READY }
	:: atomic { state == SETTLE && (filec & NONE_OF(listc) & EVERY_ID) != 0 ->
		if
		:: weak == OPEN_WITHOUT_SYNC -> state = CLEAN
		:: weak != OPEN_WITHOUT_SYNC -> /* the manifest is written once more: a rename that failed to get to disk is not tried again */
			c_code { if (now.weak != OPEN_TRUSTS_CACHE) replace_manifest(now.listc); };
			sync(CLEAN)
		fi }
	:: atomic { state == CLEAN && (filec & NONE_OF(listc) & EVERY_ID) != 0 -> first_of(filec & NONE_OF(listc) & EVERY_ID); c_code { remove_file(1 << now.i); }; i = 0 }
	:: atomic { state == CLEAN && (filec & NONE_OF(listc) & EVERY_ID) == 0 -> state = READY }
	od
}
