#!/bin/bash
# A volume of three replicas beside a single copy, in one run on this machine: the medians of
# interleaved rounds.
# Usage: bench/volume.sh [ROUNDS]       needs target/release/ogive (make build), fio and qemu-nbd
#
# raw       a preallocated file of this disk: fio with io_uring and O_DIRECT, fdatasync after each write
# qemu-nbd  the same file over NBD and a unix socket: one copy, writes answered before any flush
# ogive     a volume of three replicas on loopback over NBD and a unix socket, durable on a majority
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-3}
ogive=${CARGO_TARGET_DIR:-target}/release/ogive
dir=$(mktemp -d "${TMPDIR:-/tmp}/ogive-bench.XXXXXX")
pid=
stop() {
    [ -z "$pid" ] || kill "$pid" 2>/dev/null || true
    "$ogive" demo --stop --dir "$dir/demo" >/dev/null 2>&1 || true
    rm -rf "$dir"
}
trap stop EXIT

echo "preparing: a file of 256 MiB, a cluster of three chunkservers" >&2
dd if=/dev/zero of="$dir/raw" bs=1M count=256 oflag=direct status=none
"$ogive" demo --keep --seconds 1 --dir "$dir/demo" >"$dir/demo.log" 2>&1 || { tail "$dir/demo.log" >&2; exit 1; }
qemu-nbd --format=raw --cache=none --aio=io_uring --persistent --socket="$dir/qemu.sock" \
    --fork --pid-file="$dir/qemu.pid" "$dir/raw"
pid=$(cat "$dir/qemu.pid")

number() { python3 -c 'import json,sys
r = json.load(sys.stdin)
o = r["read"] or r["write"]
print(round(o["iops"]), round(o["latency"]["mean_us"]))'; }
nbd() { "$ogive" bench volume "$1" --reads "$2" --depth "$3" --range 200MiB --seconds 3 --json 2>/dev/null | number; }
raw() { # rw depth extra...
    local rw=$1 depth=$2
    shift 2
    fio --name=raw --filename="$dir/raw" --size=200m --rw="$rw" --bs=4k --iodepth="$depth" --direct=1 \
        --ioengine=io_uring --runtime=3 --time_based --output-format=json "$@" | python3 -c 'import json,sys
j = json.load(sys.stdin)["jobs"][0]
o = j["read"] if j["read"]["total_ios"] else j["write"]
# A flush is a separate operation to fio: what a write takes with it follows from the rate.
print(round(o["iops"]), round(int(sys.argv[1]) * 1e6 / o["iops"]))' "$depth"
}

for round in $(seq "$rounds"); do
    echo "round $round of $rounds" >&2
    u="nbd+unix:///load?socket=$dir/demo/nbd-1.sock"
    q="nbd+unix:///?socket=$dir/qemu.sock"
    echo "write-d1 raw $(raw randwrite 1 --fdatasync=1)"
    echo "write-d1 ogive $(nbd "$u" 0 1)"
    echo "write-d32 qemu-nbd-unflushed $(nbd "$q" 0 32)"
    echo "write-d32 ogive $(nbd "$u" 0 32)"
    echo "read-d1 qemu-nbd $(nbd "$q" 100 1)"
    echo "read-d1 ogive $(nbd "$u" 100 1)"
    echo "read-d32 raw $(raw randread 32)"
    echo "read-d32 qemu-nbd $(nbd "$q" 100 32)"
    echo "read-d32 ogive $(nbd "$u" 100 32)"
done >"$dir/results"
python3 - "$dir/results" <<'PY'
import statistics, sys
seen = {}
for line in open(sys.argv[1]):
    what, who, iops, mean = line.split()
    seen.setdefault((what, who), []).append((int(iops), int(mean)))
rounds = len(next(iter(seen.values())))
print(f"{'4 KiB random':12} {'system':20} {'IOPS':>8} {'mean us':>8}   (medians of {rounds} rounds)")
for (what, who), runs in seen.items():
    iops, mean = (statistics.median(run[i] for run in runs) for i in (0, 1))
    print(f"{what:12} {who:20} {iops:8.0f} {mean:8.0f}")
PY
