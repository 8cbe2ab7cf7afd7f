/*
 * The logs of a store: batches over shards, syncs, marks, seals, the journal, power failures,
 * process deaths and recovery. README.md says what is modelled and what each rule is for.
 *
 * Sizes, set with -D:
 *   N  shards             G  files a log may have        C  records a file holds
 *   W  writes in all      K  failures in all             P  records of a batch's part
 *   F  frames of a journal file
 * Switches, 0 or 1:
 *   JOURNAL  commits go through the journal    DIRECT  and may go around it
 *   IDLE     a batch may have idle parts       FAILS   syncs may fail
 *   HALF     a batch may fail half-way         DAMAGE  a record may rot at the end
 *   PUTS     single writes, besides batches    SYNCS   shards are synced at any time
 *
 * The environment variable WEAK names a rule that the run leaves out.
 */
#ifndef N
#define N 2
#endif
#ifndef G
#define G 2
#endif
#ifndef C
#define C 2
#endif
#ifndef W
#define W 3
#endif
#ifndef K
#define K 2
#endif
#ifndef P
#define P 1
#endif
#ifndef F
#define F 1
#endif
#ifndef JOURNAL
#define JOURNAL 0
#endif
#ifndef DIRECT
#define DIRECT 0
#endif
#ifndef IDLE
#define IDLE 0
#endif
#ifndef FAILS
#define FAILS 0
#endif
#ifndef HALF
#define HALF 0
#endif
#ifndef DAMAGE
#define DAMAGE 0
#endif
#ifndef PUTS
#define PUTS 1
#endif
#ifndef SYNCS
#define SYNCS 1
#endif
#define FILES (N*G)
#define SLOTS (N*G*C)
#define L (G*C)       /* records that a log can have */
#define ALL ((1<<N)-1)
#define LATER 16      /* added to a slot: a later record of a part, not the head of the batch */
#define SEALED 128    /* added to a mark: no record follows */
#define TORN 255      /* a frame that does not verify */

/* What process states mean. */
#define RUNS 0
#define DEAD 1
#define FINISH 2      /* logs were read, files are put in order */
#define SEAL 3        /* files that take no more records are sealed */
#define REPLAY 4      /* the journal is put into the files */
#define UNLINK 5      /* the journal is removed */
#define OVER 6        /* nothing more to look at */

/* The rules, by which WEAK names them; README.md explains each. */
#define ACK_BEFORE_SETTLE      1
#define SETTLE_OWN_ONLY        2
#define MARK_BEFORE_DATA       3
#define NO_RESOLVE             4
#define RESOLVE_ONCE           5
#define NO_CUT_SEAL            6
#define CUT_SEAL_UNSYNCED      7
#define CUT_SEAL_UNSETTLED     8
#define WRITE_BEFORE_SEAL      9
#define LAST_SEAL_UNSYNCED     10
#define NO_REWRITE             11
#define RETRY_SYNC             12
#define FORGET_HEADS           13
#define IDLE_NOT_NAMED         14
#define IDLE_NOT_SETTLED       15
#define IDLE_NOT_RESOLVED      16
#define HALF_GOES_ON           17
#define SPLIT_JOURNAL_CUT      18
#define NO_CHECKPOINT          19
#define HEAD_UNSYNCED          20
#define REPLAY_UNSYNCED        21
#define ACK_BEFORE_FRAME       22
#define JOURNAL_MARK_IGNORED   23
#define JOURNAL_MARK_LOST      24
#define JOURNAL_MARK_CACHED    25

byte weak;            /* the rule that is left out, 0: none */

/* Segment files: each byte in the page cache and on the disk. */
byte cache[SLOTS];    /* id of the write, 0: never written */
byte disk[SLOTS];
byte stuck[FILES];    /* a bit a slot: a failed sync left it clean in the cache, and not on disk */
byte markc[FILES];    /* the mark: records that it promises, and SEALED */
byte markd[FILES];
byte markstuck;       /* a bit a file */
byte base[FILES];     /* records of the log in front of the file; does not change */
byte nfiles[N];       /* that the manifest lists */

/* What the head of a batch says. */
byte parts[W+1];      /* shards with records of the write */
byte idle[W+1];       /* shards in which the batch found nothing to do */
byte named[W+1];      /* of these, those whose log was not on disk up to there; the head names them */
byte need[(W+1)*N];   /* records that the log of a shard must have */
byte writes;

/* What must come out. */
byte said[N*L];       /* the writes of a log, in order */
byte length[N];          /* how many; also the end of the log of the process that runs */
byte promised[N];     /* records that a sync has returned for */
bit nopower;          /* no power failure since the store was last open */

/* The process. */
byte state;
byte failures;
bit readonly;         /* a sync has failed */
byte taking[N];       /* 1: the last file takes records */
byte sealed[N];       /* files that are, in order */
byte ondisk[N];       /* records whose data is synced */
byte synced[N];       /* and settled and marked */
byte open[N];         /* a bit a write: batches with a part here that are not settled */
byte settled;         /* a bit a write */

/* A sync of a shard: 0 none, 1 data is synced, 2 the batches are known, 3 settled, 4 a mark is stored. */
byte step[N];
byte upto[N];         /* records that it covers */
byte leave[N];        /* files in front of the one that the writer is at */
byte mine[N];         /* 1: that one is marked too */
byte seals[N];        /* the next file to seal */
byte needs[N*N];      /* records that other shards must have on disk first */
byte ties[N];         /* a bit a write: batches that this settles */

/* Recovery. */
byte end[N];          /* of the log */
byte first[N];        /* records in sealed files */
byte keep[N];         /* files that stay */
byte cut[N];          /* 1: bytes follow the end in the last file */
byte did[N];          /* steps of it */

/* The journal: two files of F frames. */
#if JOURNAL
byte there[2];        /* in the cache: the file has its name */
byte folder[2];       /* on disk: 0 no name, 1 has it, 2 removed, and the folder is not synced */
byte headc[4];        /* generation in each of the two places of a head */
byte headd[4];
byte genc[2*F];       /* of each frame; 0: none, or TORN */
byte gend[2*F];
byte framec[2*F*SLOTS]; /* records in it */
byte framed[2*F*SLOTS];
byte framestuck[2];   /* a bit a frame, and bit F for the head */
byte commit;          /* 0 none, 1 cut, 2 head written, 3 room, 4 frame written, 5 direct, 6 half a cut */
byte current;         /* file that takes frames + 1 */
byte generation;
byte frames;          /* in it */
byte target[N];       /* the cut */
byte piece[SLOTS];
byte pieceend[FILES];
byte injournal[FILES]; /* records of a file that a commit had */
byte journaled[N];    /* records of a log that a commit had */
byte check[2];        /* 1: the file waits for its checkpoint */
byte checkto[2*N];
byte jmark[FILES];    /* what the journal promises, told to recovery */
byte owed[N];         /* a bit a file: its mark is to be synced before the journal goes */
byte told[N];         /* what must come out: records that the journal has promised, before it was removed */
#endif
bit rotten;

byte i; byte m; byte k; byte s; /* within a step; 0 between steps */

c_code {
/* The rule that this run leaves out. */
static int weak_rule(void) {
	const char *name = getenv("WEAK");
	if (!name || !*name) return 0;
#define RULE(rule) if (!strcmp(name, #rule)) return rule;
	RULE(ACK_BEFORE_SETTLE) RULE(SETTLE_OWN_ONLY) RULE(MARK_BEFORE_DATA) RULE(NO_RESOLVE) RULE(RESOLVE_ONCE)
	RULE(NO_CUT_SEAL) RULE(CUT_SEAL_UNSYNCED) RULE(CUT_SEAL_UNSETTLED) RULE(WRITE_BEFORE_SEAL)
	RULE(LAST_SEAL_UNSYNCED) RULE(NO_REWRITE) RULE(RETRY_SYNC) RULE(FORGET_HEADS) RULE(IDLE_NOT_NAMED)
	RULE(IDLE_NOT_SETTLED) RULE(IDLE_NOT_RESOLVED) RULE(HALF_GOES_ON) RULE(SPLIT_JOURNAL_CUT) RULE(NO_CHECKPOINT)
	RULE(HEAD_UNSYNCED) RULE(REPLAY_UNSYNCED) RULE(ACK_BEFORE_FRAME) RULE(JOURNAL_MARK_IGNORED)
	RULE(JOURNAL_MARK_LOST) RULE(JOURNAL_MARK_CACHED)
	fprintf(stderr, "no such rule: %s\n", name);
	exit(3);
}

#define FILE_OF(s, g) ((s)*G + (g))
#define SLOT(s, g, j) (FILE_OF(s, g)*C + (j))
#define MARK(x) (now.markc[x] & ~SEALED)
#define IS_SEALED(x) (now.markc[x] & SEALED)
#define HAS(set, bit) ((set) >> (bit) & 1)
#define RAISE(a, b) do { if ((a) < (b)) (a) = (b); } while (0)

#if JOURNAL
/* What a file must have: its mark says so, or the journal did. */
static int must_have(int x) {
	if (now.weak == JOURNAL_MARK_IGNORED || IS_SEALED(x) || now.jmark[x] <= MARK(x)) return MARK(x);
	return now.jmark[x];
}
#else
#define must_have(x) MARK(x)
#endif

static int count(int set) { int n = 0; for (; set; set >>= 1) n += set & 1; return n; }
static int is_batch(int w) { return w && count(now.parts[w] | now.named[w]) > 1; }

/* Where record i of a log is. Files may have been sealed before they were full. */
static int slot_of(int s, int i) {
	int g = now.nfiles[s] - 1;
	while (now.base[FILE_OF(s, g)] > i) g--;
	return SLOT(s, g, i - now.base[FILE_OF(s, g)]);
}

/* How many records file g has. */
static int used(int s, int g) {
	int x = FILE_OF(s, g);
	return (g+1 < now.nfiles[s] ? now.base[x+1] : now.length[s]) - now.base[x];
}

static void store(int slot, int what) { now.cache[slot] = what; now.stuck[slot/C] &= ~(1 << slot%C); }

static void store_mark(int x, int mark) { now.markc[x] = mark; now.markstuck &= ~(1 << x); }

static void sync_mark(int x) { if (!HAS(now.markstuck, x)) now.markd[x] = now.markc[x]; }

static void fail_mark(int x) { if (now.markc[x] != now.markd[x]) now.markstuck |= 1 << x; }

/* Data of the files that are not sealed, up to a record. A sync that fails writes the slots in which, and drops the rest. */
static void sync_data(int s, int upto) {
	int i, slot;
	for (i = 0; i < upto; i++) { slot = slot_of(s, i); if (!HAS(now.stuck[slot/C], slot%C)) now.disk[slot] = now.cache[slot]; }
}

static void fail_data(int s, int upto, int which) {
	int i, slot;
	for (i = 0; i < upto; i++) {
		slot = slot_of(s, i);
		if (now.cache[slot] == now.disk[slot] || HAS(now.stuck[slot/C], slot%C)) continue;
		if (HAS(which, i)) now.disk[slot] = now.cache[slot]; else now.stuck[slot/C] |= 1 << slot%C;
	}
}

/* ---- writes ---- */

static int records_of(int parts, int idle) { return count(parts | idle) > 1 ? P : 1; }

static int rolls(int s, int n) {
	return !now.taking[s] || used(s, now.nfiles[s]-1) + n > C;
}

/* All shards that the write goes to have room for it. */
static int fits(int parts, int idle) {
	int s, n = records_of(parts, idle);
	for (s = 0; s < N; s++) if (HAS(parts, s) && rolls(s, n) && now.nfiles[s] == G) return 0;
	return 1;
}

static void roll(int s, int n) {
	int x;
	if (!rolls(s, n)) return;
	x = FILE_OF(s, now.nfiles[s]++);
	now.base[x] = now.length[s];
	now.taking[s] = 1;
}

static int part_end(int s, int n) { return HAS(now.parts[now.writes], s) ? now.length[s] + n : now.length[s]; }

#if JOURNAL
#define on_disk(s, upto) (now.synced[s] >= (upto) || now.journaled[s] >= (upto))
#else
#define on_disk(s, upto) (now.synced[s] >= (upto))
#endif

/* Stores the records of the first n parts, at the ends of the logs, which do not move yet. */
static void begin_write(int set, int idle, int n) {
	int s, j, slot, w = ++now.writes, each = records_of(set, idle);
	now.parts[w] = set;
	now.idle[w] = idle;
	for (s = 0; s < N; s++) if (HAS(idle, s) && now.weak != IDLE_NOT_NAMED && !on_disk(s, now.length[s])) now.named[w] |= 1 << s;
	for (s = 0; s < N; s++) if (HAS(set, s)) roll(s, each);
	for (s = 0; s < N; s++) if (HAS(set | idle, s)) now.need[w*N+s] = part_end(s, each);
	for (s = 0; s < N; s++) if (HAS(set, s) && n-- > 0) {
		slot = SLOT(s, now.nfiles[s]-1, used(s, now.nfiles[s]-1));
		for (j = 0; j < each; j++) store(slot+j, w | (j ? LATER : 0));
	}
}

static void end_write(int set, int idle) {
	int s, j, w = now.writes, each = records_of(set, idle);
	for (s = 0; s < N; s++) if (HAS(set, s)) {
		for (j = 0; j < each; j++) now.said[s*L + now.length[s]++] = w | (j ? LATER : 0);
		if (is_batch(w)) now.open[s] |= 1 << w;
	}
}

/* ---- syncs ---- */

/* Batches in front of a record of a log that no shard has settled. */
static int open_in(int s, int upto) {
	int w, set = 0;
	for (w = 1; w <= now.writes; w++)
		if (HAS(now.open[s], w) && !HAS(now.settled, w) && now.need[w*N+s] <= upto) set |= 1 << w;
	return set;
}

/* What other shards must have on disk before s may promise: parts of the batches in s, and of those in front of these parts. */
static void tie(int s) {
	int t, u, w, set, changed = 1;
	for (t = 0; t < N; t++) now.needs[s*N+t] = 0;
	now.ties[s] = 0;
	now.needs[s*N+s] = now.upto[s];
	while (changed) {
		changed = 0;
		for (t = 0; t < N; t++) {
			if (now.weak == SETTLE_OWN_ONLY && t != s) continue;
			set = open_in(t, now.needs[s*N+t]) & ~now.ties[s];
			for (w = 1; w <= now.writes; w++) if (HAS(set, w)) {
				changed = 1;
				now.ties[s] |= 1 << w;
				for (u = 0; u < N; u++)
					if (HAS(now.parts[w], u) || HAS(now.named[w], u) && now.weak != IDLE_NOT_SETTLED) RAISE(now.needs[s*N+u], now.need[w*N+u]);
			}
		}
	}
}

static int waits_for(int s, int t) { return t != s && now.ondisk[t] < now.needs[s*N+t]; }

static int waits(int s) {
	int t;
	for (t = 0; t < N; t++) if (waits_for(s, t)) return 1;
	return 0;
}

static void clear_ties(int s) { int t; for (t = 0; t < N; t++) now.needs[s*N+t] = 0; now.ties[s] = 0; }

static void settle(int s) {
	int w;
	now.settled |= now.ties[s];
	for (w = 1; w <= now.writes; w++) if (HAS(now.open[s], w) && now.need[w*N+s] <= now.upto[s]) now.open[s] &= ~(1 << w);
	clear_ties(s);
}

static int full_files(int s) { return now.nfiles[s] - now.taking[s]; }

static void begin_sync(int s, int all) {
	now.leave[s] = full_files(s);
	now.mine[s] = all && now.taking[s];
	now.upto[s] = all || !now.taking[s] ? now.length[s] : now.base[FILE_OF(s, full_files(s))];
}

static void end_sync(int s) { now.step[s] = now.upto[s] = now.leave[s] = now.mine[s] = now.seals[s] = 0; clear_ties(s); }

static void mark_taking(int s) {
	int x = FILE_OF(s, now.leave[s]), n = now.upto[s] - now.base[x];
	if (now.mine[s] && n > MARK(x) && !IS_SEALED(x)) store_mark(x, n);
}

static void promise(int s) { RAISE(now.synced[s], now.upto[s]); RAISE(now.promised[s], now.upto[s]); }

/* ---- recovery ---- */

/* How far each log can be read. Not 0: the error that Open returns. */
static int read_logs(void) {
	int s, g, j, x, e;
	for (s = 0; s < N; s++) {
		int nsealed = 0;
		for (g = 0; g < now.nfiles[s]; g++) if (IS_SEALED(FILE_OF(s, g))) nsealed = g+1;
		e = 0;
		for (g = 0; g < nsealed; g++) {
			x = FILE_OF(s, g);
			if (!IS_SEALED(x)) return 1;                 /* a later one is sealed */
			if (now.base[x] != e) return 2;
			for (j = 0; j < MARK(x); j++, e++) if (!now.cache[x*C+j]) return 3;
		}
		now.first[s] = e;
		for (; g < now.nfiles[s]; g++) {
			x = FILE_OF(s, g);
			if (now.base[x] != e || !now.cache[x*C]) break;
			for (j = 0; j < C && now.cache[x*C+j]; j++) e++;
			if (j < must_have(x)) return 4;              /* it was on disk up to there */
		}
		for (; g < now.nfiles[s]; g++) {
			x = FILE_OF(s, g);
			if (must_have(x)) return 5;                  /* it was synced, and the records before it are missing */
			if (now.cache[x*C] && now.base[x] < e) return 6; /* its records are there twice */
		}
		now.end[s] = e;
		now.sealed[s] = nsealed;
	}
	return 0;
}

static int whole(int w) {
	int t;
	for (t = 0; t < N; t++) {
		if (!HAS(now.parts[w], t) && (!HAS(now.named[w], t) || now.weak == IDLE_NOT_RESOLVED)) continue;
		if (now.end[t] < now.need[w*N+t]) return 0;
	}
	return 1;
}

/* Ends the logs in front of batches that are not whole, until nothing changes. */
static void resolve(void) {
	int s, i, w, changed = now.weak != NO_RESOLVE;
	while (changed) {
		changed = 0;
		for (s = 0; s < N; s++) for (i = now.first[s]; i < now.end[s]; i++) {
			w = now.cache[slot_of(s, i)];
			if (w & LATER || !is_batch(w) || whole(w)) continue;
			now.end[s] = i;
			changed = now.weak != RESOLVE_ONCE;
		}
	}
}

/* Which files stay, and whether bytes follow the end of the log in the last one. */
static int end_logs(void) {
	int s, g, j, x;
	for (s = 0; s < N; s++) {
		for (g = now.sealed[s]; g < now.nfiles[s]; g++) {
			x = FILE_OF(s, g);
			if (now.base[x] >= now.end[s]) break;
			if (now.end[s] - now.base[x] < must_have(x)) return 7; /* it was on disk behind the end of the log */
		}
		now.keep[s] = g;
		for (; g < now.nfiles[s]; g++) if (must_have(FILE_OF(s, g))) return 8;
		now.cut[s] = 0;
		if (now.keep[s] > now.sealed[s]) {
			x = FILE_OF(s, now.keep[s]-1);
			for (j = now.end[s] - now.base[x]; j < C; j++) if (now.cache[x*C+j]) now.cut[s] = 1;
		}
	}
	return 0;
}

#if JOURNAL
static int told_now(int s) {
	int g, n = 0;
	for (g = 0; g < now.nfiles[s]; g++) if (now.jmark[FILE_OF(s, g)]) RAISE(n, now.base[FILE_OF(s, g)] + now.jmark[FILE_OF(s, g)]);
	return n;
}
#endif

/* What was found is a prefix of what was written, has what was promised, and no batch is torn. */
static int check_logs(void) {
	int s, t, i, w;
#if JOURNAL
	for (s = 0; s < N; s++) if (now.end[s] < now.told[s] || now.end[s] < told_now(s)) return 16; /* of what the journal promised, without an error */
#endif
	if (now.rotten) return 0;
	for (s = 0; s < N; s++) {
		if (now.end[s] > now.length[s]) return 11;          /* more than was written */
		for (i = 0; i < now.end[s]; i++) if (now.cache[slot_of(s, i)] != now.said[s*L+i]) return 12;
		if (now.end[s] < now.promised[s]) return 13;     /* promised, and gone */
		if (now.nopower && now.end[s] < now.length[s]) return 14; /* acknowledged, and gone with the process */
	}
	for (s = 0; s < N; s++) for (i = 0; i < now.end[s]; i++) {
		w = now.cache[slot_of(s, i)] & ~LATER;
		for (t = 0; t < N; t++) if (now.end[t] < now.need[w*N+t]) return 15; /* half a batch */
	}
	return 0;
}

/* What no mark promises may be in the page cache alone: it is made dirty again. */
static void rewrite(int s) {
	int i, slot;
	for (i = now.first[s]; i < now.end[s]; i++) {
		slot = slot_of(s, i);
		if (slot%C >= MARK(slot/C) && now.weak != NO_REWRITE) now.stuck[slot/C] &= ~(1 << slot%C);
	}
}

static void drop_file(int s) {
	int j, x = FILE_OF(s, --now.nfiles[s]);
	now.markc[x] = now.markd[x] = now.base[x] = now.stuck[x] = 0;
	now.markstuck &= ~(1 << x);
	for (j = x*C; j < x*C+C; j++) {
		now.cache[j] = now.disk[j] = 0;
#if JOURNAL /* pieces know their file by its nonce */
		{ int f; for (f = 0; f < 2*F; f++) now.framec[f*SLOTS+j] = now.framed[f*SLOTS+j] = 0; }
#endif
	}
}

/* Writes of which no trace is left are all the same. */
static void tidy(void) {
	int w, i, s, seen;
	for (w = 1; w <= now.writes; w++) {
		seen = 0;
		for (i = 0; i < SLOTS; i++) seen |= (now.cache[i] & ~LATER) == w || (now.disk[i] & ~LATER) == w;
		for (i = 0; i < N*L; i++) seen |= (now.said[i] & ~LATER) == w;
#if JOURNAL
		for (i = 0; i < 2*F*SLOTS; i++) seen |= (now.framec[i] & ~LATER) == w || (now.framed[i] & ~LATER) == w;
#endif
		if (seen) continue;
		now.parts[w] = now.idle[w] = now.named[w] = 0;
		for (s = 0; s < N; s++) now.need[w*N+s] = 0;
	}
}

static void recovered(void) {
	int s, i, g, w;
	for (s = 0; s < N; s++) {
		now.length[s] = now.end[s];
		for (i = now.length[s]; i < L; i++) now.said[s*L+i] = 0;
		now.taking[s] = now.keep[s] > now.sealed[s] && !now.cut[s];
		now.synced[s] = now.first[s];
		for (g = now.sealed[s]; g < now.nfiles[s]; g++) if (MARK(FILE_OF(s, g))) now.synced[s] = now.base[FILE_OF(s, g)] + MARK(FILE_OF(s, g));
		now.ondisk[s] = now.synced[s];
		for (i = now.first[s]; i < now.end[s]; i++) {
			w = now.cache[slot_of(s, i)];
			if (!(w & LATER) && is_batch(w) && now.weak != FORGET_HEADS) now.open[s] |= 1 << w;
		}
#if JOURNAL
		RAISE(now.told[s], told_now(s));
		now.owed[s] = 0;
		for (g = 0; g < G; g++) { now.injournal[FILE_OF(s, g)] = MARK(FILE_OF(s, g)); now.jmark[FILE_OF(s, g)] = 0; }
#endif
		now.end[s] = now.first[s] = now.keep[s] = now.cut[s] = now.did[s] = 0;
	}
	now.nopower = 1;
	now.state = SEAL;
	tidy();
}

static void die(void) {
	int s, x;
	for (s = 0; s < N; s++) {
		now.taking[s] = now.sealed[s] = now.ondisk[s] = now.synced[s] = now.open[s] = 0;
		end_sync(s);
		now.end[s] = now.first[s] = now.keep[s] = now.cut[s] = now.did[s] = 0;
	}
	now.settled = now.readonly = 0;
#if JOURNAL
	now.commit = now.current = now.generation = now.frames = 0;
	for (s = 0; s < N; s++) now.target[s] = now.journaled[s] = now.owed[s] = now.checkto[s] = now.checkto[N+s] = 0;
	for (x = 0; x < SLOTS; x++) now.piece[x] = 0;
	for (x = 0; x < FILES; x++) now.pieceend[x] = now.injournal[x] = now.jmark[x] = 0;
	now.check[0] = now.check[1] = 0;
#endif
	now.state = DEAD;
	now.failures++;
	tidy();
}

#if JOURNAL
/* ---- the journal ---- */

static void cut_shard(int s) {
	int g, j, x;
	now.target[s] = now.length[s];
	for (g = now.sealed[s]; g < now.nfiles[s]; g++) {
		x = FILE_OF(s, g);
		now.pieceend[x] = used(s, g);
		for (j = now.injournal[x]; j < used(s, g); j++) now.piece[x*C+j] = now.cache[x*C+j];
	}
}

static int wants_commit(void) {
	int s;
	for (s = 0; s < N; s++) if (now.length[s] > now.journaled[s] && now.length[s] > now.synced[s]) return 1;
	return 0;
}

static int has_pieces(void) { int x; for (x = 0; x < SLOTS; x++) if (now.piece[x]) return 1; return 0; }

static void say(void) { int s; for (s = 0; s < N; s++) RAISE(now.promised[s], now.target[s]); }

static void end_commit(void) {
	int s, x;
	say();
	for (s = 0; s < N; s++) { RAISE(now.journaled[s], now.target[s]); now.target[s] = 0; }
	for (x = 0; x < FILES; x++) { RAISE(now.injournal[x], now.pieceend[x]); now.pieceend[x] = 0; }
	for (x = 0; x < SLOTS; x++) now.piece[x] = 0;
	now.commit = 0;
}

static int direct_done(void) {
	int s;
	for (s = 0; s < N; s++) if (now.journaled[s] < now.target[s] && now.synced[s] < now.target[s]) return 0;
	return 1;
}

static int check_done(int f) {
	int s;
	for (s = 0; s < N; s++) if (now.synced[s] < now.checkto[f*N+s]) return 0;
	return 1;
}

static void put_frame(int whole) {
	int x, f = (now.current-1)*F + now.frames;
	now.genc[f] = whole ? now.generation : TORN;
	now.framestuck[f/F] &= ~(1 << f%F);
	for (x = 0; x < SLOTS; x++) now.framec[f*SLOTS+x] = whole ? now.piece[x] : 0;
}

static void frame_to_disk(int f) {
	int x;
	now.gend[f] = now.genc[f];
	for (x = 0; x < SLOTS; x++) now.framed[f*SLOTS+x] = now.framec[f*SLOTS+x];
}

static void frame_from_disk(int f) {
	int x;
	now.genc[f] = now.gend[f];
	for (x = 0; x < SLOTS; x++) now.framec[f*SLOTS+x] = now.framed[f*SLOTS+x];
}

static int frame_differs(int f) {
	int x;
	if (now.genc[f] != now.gend[f]) return 1;
	for (x = 0; x < SLOTS; x++) if (now.framec[f*SLOTS+x] != now.framed[f*SLOTS+x]) return 1;
	return 0;
}

static void tear_frame(int f) {
	int x;
	now.genc[f] = now.gend[f] = TORN;
	for (x = 0; x < SLOTS; x++) now.framec[f*SLOTS+x] = now.framed[f*SLOTS+x] = 0;
}

static void sync_journal(int f) {
	int j;
	for (j = 0; j < F; j++) if (!HAS(now.framestuck[f], j)) frame_to_disk(f*F+j);
	if (!HAS(now.framestuck[f], F)) { now.headd[f*2] = now.headc[f*2]; now.headd[f*2+1] = now.headc[f*2+1]; }
}

static void empty_journal(int f) {
	int j, x;
	for (j = f*F; j < f*F+F; j++) {
		now.genc[j] = now.gend[j] = 0;
		for (x = 0; x < SLOTS; x++) now.framec[j*SLOTS+x] = now.framed[j*SLOTS+x] = 0;
	}
	now.headc[f*2] = now.headc[f*2+1] = now.headd[f*2] = now.headd[f*2+1] = now.framestuck[f] = 0;
}

/* The removal of a file is on disk. */
static void unname(int f) { if (!now.there[f] && now.folder[f] == 2) { empty_journal(f); now.folder[f] = 0; } }

/* New, of zeros, synced, and then the folder. */
static void make_journal(int f) { empty_journal(f); now.there[f] = now.folder[f] = 1; unname(1-f); }

static void put_head(int f) {
	int g = now.generation + 1;
	now.headc[f*2 + (g/2%2 == 0)] = g;
	now.framestuck[f] &= ~(1 << F);
}

/* Frames go to f from now on; the file before waits for its checkpoint. */
static void turn(int f) {
	int s;
	if (now.current) {
		int c = now.current-1;
		now.check[c] = 1;
		for (s = 0; s < N; s++) now.checkto[c*N+s] = now.journaled[s];
	}
	now.current = f+1;
	now.generation++;
	now.frames = 0;
}

/* The pieces of all frames that count. 9: a frame is damaged and another follows. */
static int read_journal(void) {
	int f, j, x, g;
	for (f = 0; f < 2; f++) if (now.there[f]) {
		g = now.headc[f*2] > now.headc[f*2+1] ? now.headc[f*2] : now.headc[f*2+1];
		if (!g) continue;
		for (j = f*F; j < f*F+F && now.genc[j] == g; j++)
			for (x = 0; x < SLOTS; x++) if (now.framec[j*SLOTS+x]) now.piece[x] = now.framec[j*SLOTS+x];
		for (; j < f*F+F; j++) if (now.genc[j] == g) return 9;
	}
	return 0;
}

static void replay_file(int x) {
	int j;
	if (IS_SEALED(x)) return;
	for (j = 0; j < C; j++) if (now.piece[x*C+j]) {
		if (j >= MARK(x)) store(x*C+j, now.piece[x*C+j]);
		now.jmark[x] = j+1;
	}
}

static void replay(int s) { int g; for (g = 0; g < now.nfiles[s]; g++) replay_file(FILE_OF(s, g)); }

static void sync_replayed(int s) {
	int g, j, x;
	for (g = 0; g < now.nfiles[s]; g++) {
		x = FILE_OF(s, g);
		if (now.jmark[x] <= MARK(x) || now.weak == REPLAY_UNSYNCED) continue;
		for (j = 0; j < C; j++) if (!HAS(now.stuck[x], j)) now.disk[x*C+j] = now.cache[x*C+j];
		sync_mark(x);
	}
}

/* The files are going to be removed, so marks say what they promised. One that says as much may be in the cache alone. */
static void store_journal_marks(int s) {
	int g, x;
	if (now.weak == JOURNAL_MARK_LOST) return;
	for (g = now.sealed[s]; g < now.keep[s]; g++) {
		x = FILE_OF(s, g);
		if (now.jmark[x] > MARK(x) || now.jmark[x] && now.weak != JOURNAL_MARK_CACHED) {
			store_mark(x, must_have(x));
			now.owed[s] |= 1 << g;
		}
	}
}

static void sync_journal_marks(int s) { int g; for (g = 0; g < G; g++) if (HAS(now.owed[s], g)) sync_mark(FILE_OF(s, g)); }
static void fail_journal_marks(int s) { int g; for (g = 0; g < G; g++) if (HAS(now.owed[s], g)) fail_mark(FILE_OF(s, g)); }
#endif
}

#if JOURNAL /* a checkpoint or a commit waits for syncs */
#define WANTED (check[0] || check[1] || commit == 5)
#else
#define WANTED 1
#endif
#define EVERY(a) (a(0) && a(N/2) && a(N-1)) /* N is at most 3 */
#define FINISHED(x) (did[x] == 3)
#define REPLAYED(x) (did[x] == 2)
#define ALL_SEALED(x) (step[x] == 0 && sealed[x] + taking[x] >= nfiles[x])

inline pick_shard() { s = 0; do :: s < N-1 -> s++ :: break od }
inline choose(x, from, to) { x = from; do :: x < to -> x++ :: break od }

/* Of all that is in the page cache alone, any part is on disk. */
inline power() {
	i = 0;
	do
	:: i < SLOTS && cache[i] == disk[i] -> i++
	:: i < SLOTS && cache[i] != disk[i] ->
		if
		:: cache[i] = disk[i]
		:: ((stuck[i/C] >> (i%C)) & 1) == 0 -> disk[i] = cache[i]
		fi;
		i++
	:: i == SLOTS -> break
	od;
	i = 0;
	do
	:: i < FILES ->
		if
		:: markc[i] == markd[i] -> skip
		:: markc[i] != markd[i] -> markc[i] = markd[i]
		:: markc[i] != markd[i] && ((markstuck >> i) & 1) == 0 -> markd[i] = markc[i]
		fi;
		stuck[i] = 0;
		i++
	:: i == FILES -> break
	od;
	markstuck = 0;
	nopower = 0;
#if JOURNAL
	i = 0;
	do
	:: i < 2*F ->
		c_code { now.m = frame_differs(now.i); };
		if
		:: m == 0 -> skip
		:: m == 1 && ((framestuck[i/F] >> (i%F)) & 1) == 0 -> c_code { frame_to_disk(now.i); }
		:: m == 1 -> c_code { frame_from_disk(now.i); }
		:: m == 1 -> c_code { tear_frame(now.i); }
		fi;
		i++
	:: i == 2*F -> break
	od;
	i = 0;
	do
	:: i < 4 ->
		if
		:: headc[i] == headd[i] -> skip
		:: headc[i] != headd[i] -> headc[i] = headd[i]
		:: headc[i] != headd[i] && ((framestuck[i/2] >> F) & 1) == 0 -> headd[i] = headc[i]
		:: headc[i] != headd[i] && ((framestuck[i/2] >> F) & 1) == 0 -> headc[i] = 0; headd[i] = 0
		fi;
		i++
	:: i == 4 -> break
	od;
	i = 0;
	do
	:: i < 2 ->
		if
		:: folder[i] == 2 -> there[i] = 1; folder[i] = 1
		:: folder[i] == 2 -> c_code { unname(now.i); }
		:: folder[i] != 2 -> skip
		fi;
		framestuck[i] = 0;
		i++
	:: i == 2 -> break
	od;
	m = 0;
#endif
	i = 0;
	c_code { die(); }
}

inline kill() { c_code { die(); } }

/* A sync of the data of shard k that fails: any part is on disk, the rest will not be. */
inline data_fails(records) {
	choose(m, 0, (1<<L)-1);
	i = records;
	c_code { fail_data(now.k, now.i, now.m); };
	m = 0
}

active proctype store_and_machine() {
	c_code { now.weak = weak_rule(); };
	nopower = 1;
	do
	/* A write: a put, or a batch with parts and idle parts. */
	:: atomic { state == RUNS && !readonly && writes < W ->
		choose(m, 1, ALL);
		k = 0;
		if
		:: IDLE -> choose(k, 0, ALL); k = k & (ALL - m)
		:: else -> skip
		fi;
		c_code { now.i = fits(now.m, now.k) && (PUTS || count(now.m | now.k) > 1) ? count(now.m) : 0; };
		if
		:: i > 0 -> c_code { begin_write(now.m, now.k, N); end_write(now.m, now.k); }
		:: i > 1 && failures < K -> choose(s, 1, i-1); /* all ends between two parts */
			c_code { begin_write(now.m, now.k, now.s); };
			m = 0; k = 0; s = 0; i = 0;
			if :: power() :: kill() fi
		:: i > 1 && HALF -> choose(s, 1, i-1); /* a fault between two parts: nothing is taken back */
			c_code { begin_write(now.m, now.k, now.s); now.readonly = now.weak != HALF_GOES_ON; }
		:: else -> skip
		fi;
		m = 0; k = 0; i = 0; s = 0 }

	/* A sync begins with the data of the shard. In SEAL only what the writer has left is synced. */
	:: atomic { (state == RUNS || state == SEAL) && !readonly -> pick_shard();
		i = 0;
		if
		:: step[s] == 0 && state == RUNS && synced[s] < length[s] && (SYNCS || WANTED) -> c_code { begin_sync(now.s, 1); }; i = 1
		:: step[s] == 0 && sealed[s] + taking[s] < nfiles[s] -> c_code { begin_sync(now.s, 0); }; i = 1
		:: else -> skip
		fi;
		if
		:: i == 1 ->
			if
			:: c_code { sync_data(now.s, now.upto[now.s]); RAISE(now.ondisk[now.s], now.upto[now.s]);
				if (now.weak == ACK_BEFORE_SETTLE) promise(now.s);
				if (now.weak == MARK_BEFORE_DATA) mark_taking(now.s); };
				step[s] = 1
			:: FAILS -> k = s; data_fails(upto[s]); c_code { now.readonly = now.weak != RETRY_SYNC; }; c_code { end_sync(now.s); }
			fi
		:: else -> skip
		fi;
		i = 0; k = 0; s = 0 }
	:: atomic { state == RUNS && !readonly && (weak == MARK_BEFORE_DATA) -> pick_shard();
		if
		:: step[s] == 0 && taking[s] == 1 -> c_code { begin_sync(now.s, 1); mark_taking(now.s); end_sync(now.s); }
		:: else -> skip
		fi;
		s = 0 }

	/* It goes on. */
	:: atomic { (state == RUNS || state == SEAL) && !readonly -> pick_shard();
		c_code { now.i = waits(now.s); };
		if
		:: step[s] == 1 && (weak == CUT_SEAL_UNSETTLED && state == SEAL) -> seals[s] = sealed[s]; step[s] = 3
		:: step[s] == 1 -> c_code { tie(now.s); }; step[s] = 2
		:: step[s] == 2 && i == 1 -> choose(k, 0, N-1); /* the data of another shard */
			c_code { now.i = waits_for(now.s, now.k); };
			if
			:: i == 1 -> c_code { sync_data(now.k, now.length[now.k]); now.ondisk[now.k] = now.length[now.k]; }
			:: i == 1 && FAILS -> data_fails(length[k]); c_code { now.readonly = now.weak != RETRY_SYNC; };
				if
				:: !readonly -> c_code { end_sync(now.s); }
				:: else -> skip
				fi
			:: else -> skip
			fi
		:: step[s] == 2 && i == 0 -> c_code { settle(now.s); }; seals[s] = sealed[s]; step[s] = 3
		:: step[s] == 3 && seals[s] < leave[s] && (weak == NO_CUT_SEAL && state == SEAL) -> seals[s]++; sealed[s] = seals[s]
		:: step[s] == 3 && seals[s] < leave[s] && (weak != NO_CUT_SEAL || state != SEAL) -> /* the mark is stored */
			c_code { store_mark(FILE_OF(now.s, now.seals[now.s]), SEALED | used(now.s, now.seals[now.s])); };
			step[s] = 4
		:: step[s] == 4 -> /* and synced */
			if
			:: c_code { if (now.weak != CUT_SEAL_UNSYNCED || now.state != SEAL) sync_mark(FILE_OF(now.s, now.seals[now.s])); };
				seals[s]++; sealed[s] = seals[s]; step[s] = 3
			:: FAILS -> c_code { fail_mark(FILE_OF(now.s, now.seals[now.s])); }; readonly = 1
			fi
		:: step[s] == 3 && seals[s] >= leave[s] -> /* the mark of the active one is not synced */
			c_code { mark_taking(now.s); promise(now.s); end_sync(now.s); }
		:: else -> skip
		fi;
		m = 0; k = 0; i = 0; s = 0 }

	/* Failures, at any step. */
	:: atomic { failures < K && state != OVER -> power() }
	:: atomic { failures < K && state != OVER && state != DEAD -> kill() }
	:: atomic { DAMAGE && state == DEAD && !rotten -> choose(i, 0, SLOTS-1); /* a record in a file that is not sealed */
		if
		:: cache[i] != 0 && markc[i/C] < SEALED -> cache[i] = 0; disk[i] = 0; rotten = 1
		:: else -> skip
		fi;
		i = 0 }

	/* Recovery. */
#if JOURNAL
	:: atomic { state == DEAD -> c_code { now.i = read_journal(); }; assert(i == 0); state = REPLAY }
	:: atomic { state == REPLAY -> pick_shard();
		if
		:: did[s] == 0 -> c_code { replay(now.s); }; did[s] = 1
		:: did[s] == 1 -> c_code { sync_replayed(now.s); }; did[s] = 2
		:: else -> skip
		fi;
		s = 0 }
	:: atomic { state == REPLAY && EVERY(REPLAYED) -> c_code { int x; for (x = 0; x < SLOTS; x++) now.piece[x] = 0; for (x = 0; x < N; x++) now.did[x] = 0; };
#else
	:: atomic { state == DEAD ->
#endif
		c_code { now.i = read_logs(); if (!now.i) { resolve(); now.i = end_logs(); } };
		if
		:: rotten && i != 0 -> i = 0; state = OVER
		:: else -> assert(i == 0); /* 1 to 8: Open returns ErrCorrupt, see read_logs and end_logs */
			c_code { now.i = check_logs(); };
			assert(i == 0);        /* 11 to 16: see check_logs */
			if :: rotten -> state = OVER :: else -> state = FINISH fi
		fi }
	:: atomic { state == FINISH -> pick_shard();
		if
		:: did[s] == 0 ->
			c_code { rewrite(now.s);
#if JOURNAL
				store_journal_marks(now.s);
#endif
			};
			did[s] = 1
		:: did[s] == 1 ->
#if JOURNAL
			if
			:: c_code { sync_journal_marks(now.s); }
			:: FAILS -> c_code { fail_journal_marks(now.s); }; readonly = 1
			fi;
#endif
			did[s] = 2
		:: did[s] == 2 && !readonly -> /* the mark of the file that was sealed last; then the files behind the end go */
			c_code {
				int x = FILE_OF(now.s, now.sealed[now.s]-1);
				if (now.sealed[now.s] && now.weak != LAST_SEAL_UNSYNCED) { store_mark(x, now.markc[x]); sync_mark(x); }
				while (now.nfiles[now.s] > now.keep[now.s]) drop_file(now.s);
			};
			did[s] = 3
		:: did[s] == 2 && !readonly && FAILS && sealed[s] -> c_code { int x = FILE_OF(now.s, now.sealed[now.s]-1); store_mark(x, now.markc[x]); fail_mark(x); }; readonly = 1
		:: else -> skip
		fi;
		s = 0 }
	:: atomic { state == FINISH && !readonly && EVERY(FINISHED) -> c_code { recovered(); } }
	:: atomic { state == SEAL && !readonly && (EVERY(ALL_SEALED) || (weak == WRITE_BEFORE_SEAL)) ->
		state = (JOURNAL -> UNLINK : RUNS) }
#if JOURNAL
	:: atomic { state == UNLINK -> /* one after the other; the folder is not synced */
		if
		:: there[0] -> there[0] = 0; folder[0] = 2
		:: !there[0] && there[1] -> there[1] = 0; folder[1] = 2
		:: else -> state = RUNS; c_code { tidy(); }
		fi }

	/* A commit of the journal. */
	:: atomic { state == RUNS && !readonly ->
		c_code { now.m = wants_commit(); now.k = !now.current || now.frames == F; now.i = direct_done(); now.s = has_pieces(); };
		if
		:: commit == 0 && m == 1 && (weak != SPLIT_JOURNAL_CUT) -> c_code { int x; for (x = 0; x < N; x++) cut_shard(x); }; commit = 1
		:: commit == 0 && m == 1 && (weak == SPLIT_JOURNAL_CUT) -> c_code { cut_shard(0); }; commit = 6
		:: commit == 6 -> c_code { int x; for (x = 1; x < N; x++) cut_shard(x); }; commit = 1
		:: commit == 1 && s == 0 -> c_code { end_commit(); }
		:: commit == 1 && s == 1 && DIRECT -> commit = 5
		:: commit == 1 && s == 1 && k == 0 -> commit = 3
		:: commit == 1 && s == 1 && k == 1 && (check[current%2] == 0 || (weak == NO_CHECKPOINT)) -> s = current%2;
			if :: there[s] == 0 -> c_code { make_journal(now.s); } :: else -> skip fi;
			c_code { put_head(now.s); if (now.weak == HEAD_UNSYNCED) turn(now.s); };
			c_code { now.commit = now.weak == HEAD_UNSYNCED ? 3 : 2; }
		:: commit == 2 -> s = current%2;
			if
			:: c_code { sync_journal(now.s); turn(now.s); }; commit = 3
			:: FAILS -> c_code { now.framestuck[now.s] |= 1 << F; }; readonly = 1
			fi
		:: commit == 3 -> c_code { put_frame(1); if (now.weak == ACK_BEFORE_FRAME) say(); }; commit = 4
		:: commit == 3 && FAILS -> c_code { put_frame(0); }; commit = 5 /* a part of it: the next frame takes its place */
		:: commit == 4 ->
			if
			:: c_code { sync_journal(now.current-1); now.frames++; end_commit(); }
			:: FAILS -> c_code { now.framestuck[now.current-1] |= 1 << now.frames; }; readonly = 1
			fi
		:: commit == 5 && i == 1 -> c_code { end_commit(); }
		:: else -> skip
		fi;
		m = 0; k = 0; i = 0; s = 0 }
	:: atomic { state == RUNS && !readonly -> choose(s, 0, 1);
		c_code { now.i = check_done(now.s); };
		if
		:: check[s] == 1 && i == 1 -> check[s] = 0; c_code { int x; for (x = 0; x < N; x++) now.checkto[now.s*N+x] = 0; }
		:: else -> skip
		fi;
		s = 0; i = 0 }
#endif
	od
}
