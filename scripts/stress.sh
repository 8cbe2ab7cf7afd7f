#!/usr/bin/env bash
# Puts stores under load and checks every answer: builds internal/stress, with and without the race detector, and
# runs it; --help lists its flags. Exit status 1 says that something was wrong, and the output where the store and
# the history were saved and how to repeat it.
#
#   scripts/stress.sh --for 10m [--seed N] [--mode plain|race|poison|race+poison|all] [--dir FOLDER] [--life N]
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
build="$(mktemp -d)"
trap 'rm -rf "$build"' EXIT
trap : INT # the program ends in good order, and then this does

if ! command -v go >/dev/null; then
	echo "stress.sh: the Go tool (go) is not in PATH" >&2
	exit 2
fi
(cd "$root" && go build -o "$build/stress" ./internal/stress)
case "$*" in
*--mode[\ =]plain* | *--mode[\ =]poison* | *--help*) ;;
*) (cd "$root" && go build -race -o "$build/stress-race" ./internal/stress) ;;
esac
"$build/stress" --race-binary "$build/stress-race" "$@"
