#!/usr/bin/env bash
# Tests everything in the repository: format, vet, staticcheck, builds for all supported platforms,
# tests with the race detector, the same again with released mappings made inaccessible, the
# failure suites (power, calls, file systems, processes), the examples, the models of docs/model, stress, and a short run of
# every fuzz target.
# Tests that need root, loop devices, mkfs.ext4, mkfs.xfs or mkfs.btrfs are skipped where these are missing, the models where
# spin is.
#
#   scripts/test.sh          what CI runs: about half an hour on 2 cores
#   scripts/test.sh --long   the nightly sizes: more crash rounds, longer stress and fuzzing; hours
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

staticcheck=honnef.co/go/tools/cmd/staticcheck@v0.8.2
fuzz_time=10s
stress_time=60s
test_timeout=40m
case "${1:-}" in
"") ;;
--long)
	export FREYJA_LONG=1
	fuzz_time=10m
	stress_time=1h
	test_timeout=12h
	;;
*)
	sed -n '2,10s/^# \{0,1\}//p' "$0" >&2
	exit 2
	;;
esac

# Folders of tests that need no disk; fuzzing leaves some behind.
if [ -d /dev/shm ]; then
	FREYJA_FAST_DIR=$(mktemp -d /dev/shm/freyja-XXXXXX)
	chmod 755 "$FREYJA_FAST_DIR" # some tests are run as nobody
	export FREYJA_FAST_DIR
fi
programs=$(mktemp -d)
trap 'rm -rf "$programs" "${FREYJA_FAST_DIR:-}"' EXIT

modules=(. benchmarks metrics/prometheus)
platforms=(linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64)

step() { printf '\n== %s (%ds)\n' "$*" "$SECONDS"; }
in_modules() {
	local module
	for module in "${modules[@]}"; do
		(cd "$module" && "$@")
	done
}

step gofmt
unformatted=$(gofmt -l .)
if [ -n "$unformatted" ]; then
	printf 'not formatted:\n%s\n' "$unformatted" >&2
	exit 1
fi

step "go.mod and go.sum are tidy"
in_modules go mod tidy -diff

step "build and vet for ${platforms[*]}"
for platform in "${platforms[@]}"; do
	export GOOS=${platform%/*} GOARCH=${platform#*/} CGO_ENABLED=0
	go build ./...
	go vet ./...
	(cd metrics/prometheus && go vet ./...)
	case $platform in # the engines that benchmarks compare with take minutes to build for each
	linux/amd64 | darwin/arm64 | windows/amd64) (cd benchmarks && go build ./... && go vet ./...) ;;
	esac
done
unset GOOS GOARCH CGO_ENABLED

step "other platforms are refused by a sentence"
for refused in linux/386:freyja_does_not_build_in_32_bits freebsd/amd64:freyja_builds_for_linux_darwin_and_windows_only \
	linux/riscv64:freyja_builds_for_amd64_and_arm64_only; do
	platform=${refused%%:*}
	said=$(GOOS=${platform%/*} GOARCH=${platform#*/} CGO_ENABLED=0 go build . 2>&1) || true
	if [[ "$said" != *"undefined: ${refused#*:}"* ]]; then
		printf 'go build for %s says:\n%s\n' "$platform" "$said" >&2
		exit 1
	fi
done

step staticcheck
in_modules go run "$staticcheck" ./...

# Benchmarks know two engines written in C, where their headers are: on Debian, liblmdb-dev and librocksdb-dev.
has_header() { [ "$(go env CGO_ENABLED)" = 1 ] && echo "#include <$1>" | "$(go env CC)" -E - >/dev/null 2>&1; }
tags=""
if has_header lmdb.h; then tags=lmdb; fi
if has_header rocksdb/c.h; then tags=${tags:+$tags,}rocksdb; fi
if [ -n "$tags" ]; then
	step "engines in C: $tags"
	(cd benchmarks && go vet -tags "$tags" ./adapters/... && go test -tags "$tags" -count=1 -timeout "$test_timeout" ./adapters/...)
fi

step "tests with the race detector"
in_modules go test -race -count=1 -timeout "$test_timeout" ./...

# Not the failures of disks, machines and processes: they say nothing about who still uses a mapping.
step "tests with the race detector and released mappings poisoned"
FREYJA_POISON=1 go test -race -count=1 -timeout "$test_timeout" \
	-skip 'PowerFailure|EveryCallFails|Disk|Permissions|StrangeThings|DamagedFolder|Limit|Sizes|CrashAnywhere|KilledAnywhere|TornTail' . ./shard ./hashidx ./mmapio

step "readers stopped in front of a load, with the race detector and released memory poisoned"
FREYJA_POISON=1 go test -race -tags freyja_hooks -count=1 -run 'HeldByItsReader|FoldIsAtomic' ./hashidx

step "tests without the race detector: those that count allocations, commands of the documents, failures of calls and power"
go test -count=1 -timeout "$test_timeout" -run "Alloc|Document|Example|UsageIs|IndexMemory|Frozen|EveryCallFails|PowerFailure|Limit" ./...

# Their tests ran above; this is what somebody sees who has just cloned the repository.
step "examples, run without arguments"
go build -o "$programs" ./examples/...
for example in examples/*/; do
	example=$(basename "$example")
	echo "-- $example"
	case $example in
	# It serves until it is told to end, and has to end well then; its test asks it for documents.
	httpservice) timeout --preserve-status --kill-after=20s 3s "$programs/$example" | tee "$programs/out" ;;
	*) timeout --kill-after=20s 60s "$programs/$example" | tee "$programs/out" ;;
	esac
	[ -s "$programs/out" ]
done

step "models of the protocol"
scripts/model.sh "$@"

step "stress, all modes, $stress_time"
scripts/stress.sh --for "$stress_time"

step "fuzz targets, $fuzz_time each"
for package in $(go list ./...); do
	for target in $(go test -list '^Fuzz' "$package" | grep '^Fuzz' || true); do
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$fuzz_time" "$package"
	done
done

if [ -n "${FREYJA_LONG:-}" ]; then
	step "mutations, which the tests must notice"
	scripts/mutate.sh --timeout 30m
fi

step "all passed"
