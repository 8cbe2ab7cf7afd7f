#!/usr/bin/env bash
# Verifies the models of docs/model with spin: every state of some small stores, and that leaving out any rule is found.
# Needs spin and a C compiler; where one is missing it says so, and that is no failure. Memory: less than 2 GB.
#
#   scripts/model.sh               what CI runs: about a minute and a half
#   scripts/model.sh --long        larger stores besides, at most an hour each
#   scripts/model.sh --trail NAME [RULE]
#                                  the steps of one that fails: the name of a line below, and the rule left out
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

long=""
trail=""
trail_rule=""
case "${1:-}" in
"") ;;
--long) long=1 ;;
--trail) trail=${2:?the name of a store} trail_rule=${3:-} ;;
*)
	sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
	exit 2
	;;
esac

cc=${CC:-cc}
for tool in spin "$cc"; do
	if ! command -v "$tool" >/dev/null; then
		echo "model.sh: $tool is not installed: the models are not verified"
		exit 0
	fi
done

memory_mb=1800
depth=20000
limit=10m
if [ -n "$long" ]; then limit=1h; fi
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
failed=0
tried=" "

fail() {
	echo "FAILED: $*"
	failed=1
}

# run NAME RULE: the output of a verification, of which spin's exit status says nothing.
run() { (cd "$build/$1" && WEAK=$2 timeout -s INT "$limit" ./pan -E -w20 -m$depth || true) >"$build/$1/$2.out" 2>&1; }

# store NAME MODEL "SIZES" "RULES": verifies the model, and that each of the rules is missed.
store() {
	local name=$1 model=$2 sizes=$3 rules=$4 rule out states
	if [ -n "$trail" ] && [ "$trail" != "$name" ]; then return; fi
	mkdir "$build/$name"
	cp "docs/model/$model.pml" "$build/$name/"
	# shellcheck disable=SC2086 # sizes are words
	(cd "$build/$name" && spin $sizes -a "$model.pml" && "$cc" -O2 -w -DSAFETY -DNOREDUCE -DCOLLAPSE -DMEMLIM=$memory_mb \
		-DVECTORSZ=2048 -o pan pan.c) >"$build/$name/build.out" 2>&1 || {
		cat "$build/$name/build.out"
		fail "$name: not built"
		return
	}
	if [ -n "$trail" ]; then
		run "$name" "$trail_rule"
		(cd "$build/$name" && WEAK=$trail_rule ./pan -r) || true
		return
	fi
	run "$name" ""
	out=$build/$name/.out
	states=$(sed -n 's/^ *\([0-9]*\) states, stored.*/\1/p' "$out")
	if ! grep -q 'errors: 0' "$out" || grep -qE 'Search not completed|out of memory|depth too small' "$out"; then
		grep -E 'assertion|errors:|not completed|memory|depth' "$out" || cat "$out"
		fail "$name [$model $sizes]: see scripts/model.sh --trail $name"
	else
		echo "$name [$model $sizes]: $states states, all right"
	fi
	for rule in $rules; do
		tried="$tried$rule "
		run "$name" "$rule"
		if grep -q 'assertion violated' "$build/$name/$rule.out"; then
			echo "  without $rule: found"
		else
			fail "$name: the model does not miss $rule"
		fi
	done
}

store two-shards log "-DN=2 -DG=2 -DC=2 -DW=3 -DK=2 -DFAILS=1 -DHALF=1" \
	"ACK_BEFORE_SETTLE MARK_BEFORE_DATA NO_RESOLVE NO_CUT_SEAL CUT_SEAL_UNSYNCED CUT_SEAL_UNSETTLED WRITE_BEFORE_SEAL \
	FORGET_HEADS NO_REWRITE RETRY_SYNC HALF_GOES_ON"
store many-files log "-DN=1 -DG=3 -DC=1 -DW=4 -DK=3 -DFAILS=1" \
	"LAST_SEAL_UNSYNCED"
store idle-parts log "-DN=2 -DG=1 -DC=2 -DW=2 -DK=2 -DIDLE=1 -DFAILS=1" \
	"IDLE_NOT_NAMED IDLE_NOT_SETTLED IDLE_NOT_RESOLVED"
store three-shards log "-DN=3 -DG=1 -DC=2 -DW=2 -DK=1 -DPUTS=0" \
	"SETTLE_OWN_ONLY RESOLVE_ONCE"
store long-parts log "-DN=2 -DG=1 -DC=4 -DP=2 -DW=2 -DK=2" ""
store journal log "-DN=2 -DG=1 -DC=2 -DW=2 -DK=2 -DJOURNAL=1 -DDIRECT=1" \
	"SPLIT_JOURNAL_CUT REPLAY_UNSYNCED ACK_BEFORE_FRAME"
store journal-turns log "-DN=2 -DG=1 -DC=2 -DW=3 -DK=1 -DJOURNAL=1 -DSYNCS=0" \
	"NO_CHECKPOINT"
store journal-frames log "-DN=1 -DG=1 -DC=5 -DW=5 -DK=1 -DF=2 -DJOURNAL=1 -DSYNCS=0" \
	"HEAD_UNSYNCED"
store journal-damage log "-DN=1 -DG=1 -DC=2 -DW=2 -DK=3 -DJOURNAL=1 -DDIRECT=1 -DDAMAGE=1" \
	"JOURNAL_MARK_IGNORED JOURNAL_MARK_LOST JOURNAL_MARK_CACHED"
store journal-fails log "-DN=1 -DG=2 -DC=2 -DW=3 -DK=2 -DJOURNAL=1 -DDIRECT=1 -DFAILS=1" ""
store names names "-DIDS=4 -DK=3" \
	"LIST_BEFORE_SYNC REMOVE_BEFORE_SYNC OPEN_WITHOUT_SYNC"
store names-failed-syncs names "-DIDS=4 -DK=3 -DFAILS=1" \
	"RETRY_FOLDER_SYNC OPEN_TRUSTS_CACHE"

if [ -n "$long" ]; then
	store long-two-shards log "-DN=2 -DG=3 -DC=2 -DW=4 -DK=2" ""
	store long-three-failures log "-DN=2 -DG=2 -DC=2 -DW=3 -DK=3" ""
	store long-idle-parts log "-DN=2 -DG=2 -DC=2 -DW=3 -DK=2 -DIDLE=1 -DFAILS=1" ""
	store long-three-shards log "-DN=3 -DG=1 -DC=2 -DW=3 -DK=1" ""
	store long-idle-three-shards log "-DN=3 -DG=1 -DC=2 -DW=2 -DK=1 -DIDLE=1" ""
	store long-journal log "-DN=2 -DG=1 -DC=2 -DW=3 -DK=2 -DJOURNAL=1 -DDIRECT=1" ""
	store long-journal-fails log "-DN=2 -DG=1 -DC=2 -DW=2 -DK=2 -DJOURNAL=1 -DDIRECT=1 -DFAILS=1 -DIDLE=1" ""
	store long-journal-damage log "-DN=2 -DG=1 -DC=2 -DW=2 -DK=2 -DJOURNAL=1 -DDIRECT=1 -DDAMAGE=1" ""
	store long-names names "-DIDS=6 -DK=4 -DFAILS=1" ""
fi

if [ -z "$trail" ]; then
	for rule in $(cat docs/model/*.pml | grep -oE '\bRULE\([A-Z_]+\)' | tr -d '()' | sed 's/^RULE//'); do
		case "$tried" in
		*" $rule "*) ;;
		*) fail "nothing tries to leave out the rule $rule" ;;
		esac
	done
fi
exit $failed
