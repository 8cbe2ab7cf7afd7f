#!/usr/bin/env bash
# Builds the benchmark program and runs it; --help lists its flags. Results go to a folder below the current one.
#
#   scripts/bench.sh [flags]        reads and writes, beside maps and a mutex, on more and more processors
#   scripts/bench.sh life [flags]   compaction, opening, scans, snapshots, batches, backups
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
build="$(mktemp -d)"
trap 'rm -rf "$build"' EXIT

if ! command -v go >/dev/null; then
    echo "bench.sh: the Go tool (go) is not in PATH" >&2
    exit 1
fi
(cd "$root/benchmarks" && go build -o "$build/freyja-bench" ./cmd/freyja-bench)
"$build/freyja-bench" "$@"
