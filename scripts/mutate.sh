#!/usr/bin/env bash
# Tests the tests: breaks the code in one place after the other, as mutations.txt beside this script says, runs the tests
# that fit, and prints the mutations that no test noticed. Exit status 1 says that there are some, or that a rule does not
# apply any more. The checkout is not changed. A run of all takes hours: it is for the night, not for CI.
#
#   scripts/mutate.sh [--only REGEXP] [--timeout 5m]    tries all rules, or those with such names
#   scripts/mutate.sh --check                           only looks whether every rule applies
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec go run ./internal/mutate "$@"
