#!/usr/bin/env bash
# Builds the benchmark program and runs it; --help lists its flags. Results go to a folder below the current one.
#
#   scripts/bench.sh [flags]        reads and writes, beside maps and a mutex, on more and more processors
#   scripts/bench.sh life [flags]   compaction, opening, scans, snapshots, batches, backups
#   scripts/bench.sh --peers [flags]
#                                   freyja beside other engines, each in a process of its own: less than 15 minutes
#   scripts/bench.sh --peers --full [flags]
#                                   the same, all sizes: hours; --full alone means this too
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
build="$(mktemp -d)"
trap 'rm -rf "$build"' EXIT

if ! command -v go >/dev/null; then
    echo "bench.sh: the Go tool (go) is not in PATH" >&2
    exit 1
fi
case "${1:-}" in
--peers)
    shift
    set -- peers "$@"
    ;;
--full) set -- peers "$@" ;;
esac
# Engines written in C are compared where their headers are: on Debian, liblmdb-dev and librocksdb-dev.
tags=""
if [ "${1:-}" = peers ] && [ "$(go env CGO_ENABLED)" = 1 ]; then
    has() { echo "#include <$1>" | "$(go env CC)" -E - >/dev/null 2>&1; }
    if has lmdb.h; then tags="lmdb"; fi
    if has rocksdb/c.h; then tags="${tags:+$tags,}rocksdb"; fi
fi
(cd "$root/benchmarks" && go build -tags "$tags" -o "$build/freyja-bench" ./cmd/freyja-bench)
"$build/freyja-bench" "$@"
