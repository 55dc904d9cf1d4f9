#!/bin/bash
# The soft-RoCE tests, run as root in the guest: tests.sh [PART...], by default all of them. Each part
# ends with a line `part NAME: ok in N s` in the guest's time; the exit code is 0 when all did.
#
#   environment  the RDMA devices and UCX themselves, without Ogive: when this fails, look here first
#   ucx          the tests of ogive-ucx, and those of ogive-rpc's lanes, over rc, on one device
#   cluster      a whole cluster over rc: write, verify, kill a chunkserver, verify, return, verify
#   loss         the same while the network loses one packet in a hundred
#   fallback     RDMA that cannot be used: connections come up over TCP and the log says why
#
# Reads OGIVE_BIN (the binary), OGIVE_UCX_TESTS and OGIVE_RPC_TESTS (test binaries), OGIVE_TRANSPORT
# (default rdma; `tcp` runs the cluster parts without RDMA, which tells a fault of the lane from one
# of the cluster).
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
: "${OGIVE_BIN:?the binary}"
export OGIVE_TRANSPORT=${OGIVE_TRANSPORT:-rdma}
IMAGE_MIB=8 LOAD_SECONDS=2
# In the guest's time. Nothing here takes long: a state that takes so long never comes, nor does I/O
# that takes twice that. A hang costs little of the host's time, for the guest is idle.
SOON=120 LATE=240

# Each step says when it was done, in seconds since its part began.
say() { printf '  %3d s  %s\n' $((SECONDS - begin)) "$*"; }

fail() {
    say "FAILED: $*"
    echo "$*" >"$dir/why"
    exit 1
}

eventually() {
    local what=$1 deadline=$((SECONDS + SOON))
    shift
    until "$@"; do
        [ $SECONDS -lt $deadline ] || fail "never came: $what"
        sleep 0.5
    done
    say "$what"
}

# shellcheck source=hwtest/vm/cluster.sh
. "$here/cluster.sh"

# Packets that soft-RoCE sent through a device.
sent() { cat "/sys/class/infiniband/rxe$1/ports/1/hw_counters/sent_pkts"; }

part_environment() {
    for n in 1 2 3 4; do
        ibv_devinfo -d "rxe$n" | grep -q PORT_ACTIVE || fail "rxe$n is not active"
    done
    local before
    before=$(sent 1)
    timeout 60 ibv_rc_pingpong -d rxe1 -g 1 -n 50 >"$dir/pingpong-1" 2>&1 &
    sleep 1
    timeout 60 ibv_rc_pingpong -d rxe2 -g 1 -n 50 127.0.0.1 >"$dir/pingpong-2" 2>&1 ||
        fail "ibv_rc_pingpong: $(tail -n 2 "$dir/pingpong-2")"
    [ "$(sent 1)" -ge $((before + 50)) ] || fail "ping-pong did not cross the network"
    say "verbs: rc between two devices"
    export UCX_TLS=rc,self
    UCX_NET_DEVICES=rxe1:1 timeout 60 ucx_perftest -p 7900 >"$dir/perftest-1" 2>&1 &
    sleep 1
    UCX_NET_DEVICES=rxe2:1 timeout 60 ucx_perftest -p 7900 127.0.0.1 -t ucp_am_lat -s 4096 \
        -n 50 -w 5 >"$dir/perftest-2" 2>&1 || fail "ucx_perftest: $(tail -n 2 "$dir/perftest-2")"
    say "UCX: active messages over rc"
    wait
}

part_ucx() {
    local test before
    before=$(sent 1)
    [ -n "${OGIVE_UCX_TESTS:-}" ] || fail "OGIVE_UCX_TESTS names no test binaries"
    [ -n "${OGIVE_RPC_TESTS:-}" ] || fail "OGIVE_RPC_TESTS names no test binaries"
    for test in $OGIVE_UCX_TESTS; do run_tests "ogive-ucx" "$test"; done
    # Those of crowds and floods would take hours here; they ran over TCP and shared memory.
    export OGIVE_TEST_PATH=rdma
    for test in $OGIVE_RPC_TESTS; do
        case $(basename "$test") in
            robust-*) run_tests "ogive-rpc robust" "$test" credits ending a_stopped_process ;;
            *) run_tests "ogive-rpc $(basename "${test%-*}")" "$test" ;;
        esac
    done
    [ "$(sent 1)" -gt $((before + 100)) ] || fail "the tests sent nothing over RDMA"
    say "$(($(sent 1) - before)) packets"
}

# run_tests NAME BINARY [FILTER...]
run_tests() {
    local name=$1 test=$2 log=$dir/${1// /-}.log code=0
    shift 2
    # The environment wins over what the tests set: they all go over this device.
    UCX_TLS=rc,self UCX_NET_DEVICES=rxe1:1 timeout $((10 * SOON)) "$test" --test-threads=1 "$@" \
        >"$log" 2>&1 || code=$?
    [ $code = 0 ] || fail "$name: exit code $code"
    say "$name: $(grep -o '[0-9]* passed' "$log")"
}

part_cluster() {
    local before
    before=$(sent $GATEWAY)
    start_cluster
    exercise
    [ "$OGIVE_TRANSPORT" = tcp ] || crossed_the_wire "$before"
}

# The logs say it, and the card of the gateway sent at least the image in packets of 4 KiB.
crossed_the_wire() {
    local packets=$(($(sent $GATEWAY) - $1))
    paths_are "$OGIVE_TRANSPORT"
    [ $packets -ge $((IMAGE_MIB * 256)) ] || fail "only $packets packets left the gateway's card"
    say "all connections over $OGIVE_TRANSPORT; $packets packets left the gateway's card"
}

part_loss() {
    local n dropped
    for n in 1 2 3 4; do tc qdisc add dev "nic$n" root netem loss 1% || fail "no netem"; done
    part_cluster
    dropped=$(tc -s qdisc show dev nic$GATEWAY | grep -o 'dropped [0-9]*' | cut -d' ' -f2)
    [ "$OGIVE_TRANSPORT" = tcp ] || [ "${dropped:-0}" -gt 0 ] || fail "the network lost nothing"
    say "lost ${dropped:-0} packets of the gateway"
}

# What keeps a server from RDMA, and what its log says of that. Each is in an IPC namespace of its
# own besides, where it shares no memory with others: its connections come up over TCP.
part_fallback() {
    local name
    unset OGIVE_TRANSPORT
    wrapper=(unshare --ipc)
    start_mds 1
    start_mds 2
    start_mds 3
    prepare_devices
    start_chunkserver 1
    # Not root's right to lock all memory, and less than RDMA needs.
    wrapper=(unshare --ipc setpriv --bounding-set='-ipc_lock,-sys_resource' bash -c
        'ulimit -l 8192; exec "$@"' -)
    start_chunkserver 2
    wrapper=(unshare --ipc)
    # A firewall, as it were: 1 and 3 both have RDMA, try it with each other and give up.
    tc qdisc add dev nic3 root netem loss 100%
    start_chunkserver 3
    make_volumes
    UCX_NET_DEVICES=none:1 start_gateway
    write_image
    compare "over TCP"
    stop gateway
    # A place in the table of GIDs where none is.
    UCX_IB_GID_INDEX=200 start_gateway gateway-gid
    compare "over TCP, the GID being wrong"
    stop gateway-gid
    # Nothing arrives, and the gateway's own patience with a connection ends before RDMA's.
    tc qdisc add dev nic$GATEWAY root netem loss 100%
    start_gateway gateway-silent
    compare "over TCP, RDMA being silent"
    # UCX gives up what has no answer for 30 s, and must not take a process along.
    sleep 40
    for name in chunkserver-{1,2,3} gateway-silent; do
        kill -0 "${pids[$name]}" 2>/dev/null || fail "$name has ended"
    done
    compare "over TCP, RDMA being silent for long"
    tc qdisc del dev nic$GATEWAY root
    tc qdisc del dev nic3 root
    log_says chunkserver-2 'path=tcp.*rdma: .*memlock'
    log_says chunkserver-3 'path=tcp.*rdma: .*not answer'
    log_says gateway 'path=tcp.*rdma: .*(unreachable|does not (start|offer))'
    log_says gateway-gid 'path=tcp.*rdma: .*(unreachable|does not (start|offer))'
    log_says gateway-silent 'path=tcp.*rdma: .*not proved in the'
    grep -h -o 'path=tcp why=.*' "$dir"/{chunkserver-*,gateway*}.log | sort | uniq -c
}

log_says() { grep -Eq "$2" "$dir/$1.log" || fail "the log of $1 has no line '$2'"; }

# Ends what a part did to the network, however it ended.
lose_nothing() {
    local n
    for n in 1 2 3 4; do tc qdisc del dev "nic$n" root 2>/dev/null; done
}

# A part runs in a shell of its own and takes its processes with it.
run() {
    local part=$1 begin=$SECONDS code=0
    local dir=/run/test/$part
    mkdir -p "$dir"
    echo "part $part"
    (
        trap 'ended; lose_nothing' EXIT
        "part_$part"
    ) || code=$?
    if [ $code = 0 ]; then
        echo "part $part: ok in $((SECONDS - begin)) s"
    else
        logs
        echo "part $part: FAILED in $((SECONDS - begin)) s"
        digest "$part" $((SECONDS - begin)) >>"$digests"
    fi
    return $code
}

# Ends the part's processes; what they used is looked up before that.
ended() {
    usage >"$dir/usage"
    kill -9 "${pids[@]}" $(jobs -p) 2>/dev/null
    wait 2>/dev/null
}

# One line for each process of the part: seconds of the guest's processor, or that it has ended.
usage() {
    local name
    for name in "${!pids[@]}"; do
        # Times are in hundredths; the name, in parentheses, may hold anything.
        awk -v name="$name" '{sub(/.*\) /, ""); print name ": user", $12 / 100, "s, system", $13 / 100, "s"}' \
            "/proc/${pids[$name]}/stat" 2>/dev/null || echo "$name: has ended"
    done | sort
    awk '/^cpu /{print "all: user", $2 / 100, "s, system", $4 / 100, "s, idle", ($5 + $6) / 100, \
        "s, interrupts", ($7 + $8) / 100, "s"}' /proc/stat
}

# What the part's processes logged, before it is summed up.
logs() {
    local log
    for log in "$dir"/*.log; do
        echo "--- $(basename "$log"), lines on paths and the last ones"
        grep -E 'path=|Assert' "$log" | tail -n 8
        tail -n 25 "$log"
    done
}

# At most 30 lines that tell why a part failed: they are repeated behind everything else, since the
# end of the output is what is looked at first, and what a record of a run keeps.
digest() {
    local log dropped
    echo "part $1: FAILED after $2 s: $(cat "$dir/why" 2>/dev/null || echo "no step said why")"
    read -r _ dropped _ </proc/net/softnet_stat
    echo "  sent again: $(retries); dropped by the kernel's queue: $((16#$dropped))"
    sed 's/^/  /' "$dir/usage"
    for log in "$dir"/{mds,chunkserver,gateway,load}*.log; do
        [ -s "$log" ] || continue
        echo "  $(basename "$log"): $(grep -c 'role=Leader' "$log") elections won," \
            "$(grep -c 'connection closed' "$log") connections lost; its end:"
        tail -n 1 "$log" | cut -c 1-300 | sed 's/^/    /'
    done | head -n 18
}

retries() {
    local n
    for n in 1 2 3 4; do
        echo "rxe$n $(cat "/sys/class/infiniband/rxe$n/ports/1/hw_counters/completer_retry_err")"
    done | xargs
}

# Takes all that the tests run into the guest's memory: from the host, each opening of a file is a
# question to it. Idle time passes at once, so a server that waited for the answer would be late by
# seconds, and its peers would take it for dead. Here the guest is kept busy meanwhile.
into_memory() {
    local busy
    while :; do :; done &
    busy=$!
    # A changed time has the overlay copy a file, or a link on the way to it, into its upper layer.
    needed | sort -u >/run/needed
    xargs -a /run/needed touch -c -h
    xargs -a /run/needed realpath -e | xargs touch -c
    # What is looked for and not found is remembered.
    "$OGIVE_BIN" hwtest /run >/run/hwtest
    nbdcopy --version >/run/nbdcopy
    kill $busy
    wait $busy 2>/dev/null
}

needed() {
    local file
    printf '%s\n' /bin /sbin /lib /lib64 /etc/{ld.so.cache,nsswitch.conf,passwd,group,hosts,host.conf}
    printf '%s\n' /etc/libibverbs.d/* /usr/lib/*/{ucx,libibverbs}/*.so*
    for file in "$OGIVE_BIN" ${OGIVE_UCX_TESTS:-} ${OGIVE_RPC_TESTS:-} /usr/lib/*/ucx/*.so \
        /usr/lib/*/libibverbs/librxe-*.so $(command -v bash nbdcopy cmp grep sed tail cat cut sort head awk \
            uniq sleep timeout unshare setpriv tc ibv_devinfo ibv_rc_pingpong ucx_perftest); do
        echo "$file"
        ldd "$file" | grep -o '/[^ ]*'
    done
}

parts=("$@") failed=0 digests=$(mktemp)
[ ${#parts[@]} -gt 0 ] || parts=(environment ucx cluster loss fallback)
into_memory
for part in "${parts[@]}"; do
    run "$part" && continue
    failed=1
    # Nothing that follows could tell more.
    [ "$part" != environment ] || break
done
cat "$digests"
exit $failed
