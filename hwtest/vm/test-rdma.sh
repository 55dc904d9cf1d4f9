#!/bin/bash
# Builds Ogive with RDMA and runs tests.sh in a virtual machine with soft-RoCE. `make test-rdma` is
# this. Usage: test-rdma.sh [PART...]; the parts are in tests.sh
#
# Exit code: 0 all passed; 77 skipped, because this host cannot run the machine: the line
# `test-rdma: SKIPPED: why` says what is missing.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."

# Bound of the guest's run: what two cores that build something beside it need, twice.
LIMIT=$((2400 * ${OGIVE_CI_STRETCH:-1}))

skip() {
    echo "test-rdma: SKIPPED: $*"
    # The summary of .ci/jobs tells why too.
    [ -z "${OGIVE_CI_WHY:-}" ] || echo "$*" >"$OGIVE_CI_WHY"
    exit 77
}

# What cargo built, by its own account.
executables() { sed -n 's/^ *Executable .*(\(.*\))$/\1/p' | xargs -r realpath | xargs; }

[ "$(uname -sm)" = "Linux x86_64" ] || skip "the virtual machine is for Linux on x86_64"
said=$(mktemp)
trap 'rm -f "$said"' EXIT
.ci/install rdma 2>&1 | tee "$said" || skip "$(tail -n 1 "$said" | sed 's/^install: //')"

cargo=${CARGO:-cargo}
$cargo build --release -q --bin ogive --features ucx,rdma
OGIVE_UCX_TESTS=$($cargo test --release -p ogive-ucx --test '*' --no-run 2>&1 | executables)
[ -n "$OGIVE_UCX_TESTS" ] || { echo "test-rdma: cargo built no tests of ogive-ucx" >&2; exit 1; }
OGIVE_RPC_TESTS=$($cargo test --release -p ogive-rpc --features ucx,rdma --test ucx --test robust \
    --no-run 2>&1 | executables)
[ -n "$OGIVE_RPC_TESTS" ] || { echo "test-rdma: cargo built no tests of ogive-rpc" >&2; exit 1; }
OGIVE_BIN=$(realpath "${CARGO_TARGET_DIR:-target}/release/ogive")
export OGIVE_BIN OGIVE_UCX_TESTS OGIVE_RPC_TESTS

code=0
"$here/boot.sh" -t "$LIMIT" "$here/tests.sh" "$@" 2> >(tee "$said" >&2) || code=$?
case $code in
    0) echo "test-rdma: ok" ;;
    77) skip "$(tail -n 1 "$said")" ;;
    124) echo "test-rdma: FAILED: not done in $LIMIT s" ;;
    *) echo "test-rdma: FAILED" ;;
esac
exit $code
