#!/bin/bash
# Puts known bugs into the product, one at a time, and says after how many seeds the simulator
# notices. Prints a table; the exit code is 1 when a bug is not noticed.
# Usage: run.sh [NAME...]      all of them when none is named
#
# Each NAME.patch begins with a line that says what the bug is. The sources are those of the last
# commit, in a tree of their own, which is removed however this ends; so is nothing else touched.
# MUTANT_SEEDS (400) bounds the fresh seeds of each, MUTANT_SEED sets the first of them.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../../../.."
target=${CARGO_TARGET_DIR:-$PWD/target}/mutants
tree=$target/tree
mkdir -p "$target"
exec 9>"$target/lock"
flock -n 9 || { echo "run.sh: another run uses $tree" >&2 && exit 2; }
remove() { git worktree remove --force "$tree" 2>/dev/null || rm -rf "$tree"; }
trap remove EXIT
remove
git worktree prune
git worktree add -q --force --detach "$tree" HEAD
cd "$tree"

# Built quickly and run fast enough: what the release profile adds is of no use here.
export CARGO_TARGET_DIR=$target CARGO_INCREMENTAL=1 CARGO_PROFILE_RELEASE_LTO=off
export CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_DEBUG=0

seeds=${MUTANT_SEEDS:-400} first=${MUTANT_SEED:-$(date +%s)}
[ $# -gt 0 ] || set -- $(basename -s .patch "$here"/*.patch)
echo "first seed $first, at most $seeds seeds each"
missed=0
for name in "$@"; do
    git checkout -q -- .
    if ! patch -p1 -s --fuzz=3 --no-backup-if-mismatch <"$here/$name.patch" >/dev/null 2>&1; then
        echo "| $name | does not apply any more | |" && missed=1 && continue
    fi
    if ! ${CARGO:-cargo} build -q --release -p ogive-sim 2>"$target/errors"; then
        echo "| $name | does not compile any more | |" && missed=1 && continue
    fi
    if "$target/release/ogive-sim" --seed "$first" --seeds "$seeds" --no-shrink \
        >"$target/output" 2>&1; then
        echo "| $name | NOT NOTICED | |" && missed=1 && continue
    fi
    line=$(grep -a -m 1 ' FAILED' "$target/output" || true)
    seed=$(sed -n 's/^seed \([0-9]*\) FAILED.*/\1/p' <<<"$line")
    how=$(sed 's/^seed [0-9]* FAILED\( after [0-9.]* simulated seconds\)\?: //' <<<"$line" | tr '|' '/' | cut -c 1-150)
    case $line in *panicked*) how=$(grep -a -A 1 -m 1 ' FAILED' "$target/output" | tail -1 | cut -c 1-150) ;; esac
    echo "| $name | $((seed - first + 1)) | $how |"
done
exit $missed
