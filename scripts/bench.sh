#!/usr/bin/env bash
# Builds the benchmark program and runs it: scripts/bench.sh [flags of freyja-bench]; --help lists them.
# Results go to a folder below the current one.
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
