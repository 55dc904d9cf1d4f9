#!/bin/bash
# Puts known bugs into the store, one at a time, and says how long the crash tests take to notice.
# Usage: run.sh [NAME...]      all of them when none is named; exit code 1 when one is not noticed
#
# Each NAME.patch begins with a line that says what the bug is. The sources are those of the last
# commit, in a tree of their own. MUTANT_SECONDS (60) bounds the time of each.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../../../.."
tree=$(mktemp -d)
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
git worktree add -q --force --detach "$tree" HEAD
trap 'git worktree remove --force "$tree"' EXIT
cd "$tree"

[ $# -gt 0 ] || set -- $(basename -s .patch "$here"/*.patch)
missed=0
for name in "$@"; do
    git checkout -q -- .
    if ! patch -p1 -s --fuzz=3 --no-backup-if-mismatch <"$here/$name.patch" >/dev/null 2>&1; then
        echo "| $name | does not apply any more | | |" && missed=1 && continue
    fi
    if ! ${CARGO:-cargo} build -q -p ogive-crash 2>"$tree/errors"; then
        echo "| $name | does not compile any more | | |" && missed=1 && continue
    fi
    if "$CARGO_TARGET_DIR/debug/ogive-crash" --seed 1 --seeds 1000000 --seconds "${MUTANT_SECONDS:-60}" \
        >"$tree/output" 2>&1; then
        echo "| $name | NOT NOTICED | | |" && missed=1 && continue
    fi
    line=$(grep -a -m 1 FAILED "$tree/output" || true)
    seed=$(sed -n 's/^seed \([0-9]*\) FAILED.*/\1/p' <<<"$line")
    seconds=$(sed -n 's/.*FAILED after \([0-9.]*\) s:.*/\1/p' <<<"$line")
    echo "| $name | $(grep -a -m 1 -A 1 FAILED "$tree/output" | tr '\n' ' ' |
        sed 's/.* s: //; s/replay it.*//' | cut -c 1-90) | $seed | $seconds |"
done
exit $missed
