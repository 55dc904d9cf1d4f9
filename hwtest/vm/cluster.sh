# shellcheck shell=bash
# A cluster in the guest, for tests.sh: three metadata servers, three chunkservers on disks of memory,
# one gateway. Server n uses RDMA device rxen, the gateway rxe4; TCP goes over loopback.
# The part that uses it sets `dir`, where its files and logs are.
# shellcheck disable=SC2154

MDS=127.0.0.1:7001,127.0.0.1:7002,127.0.0.1:7003
export OGIVE_MDS=$MDS
GATEWAY=4
# Without it UD, over which rc is wired up, drops all packets between IPv4 GIDs of soft-RoCE.
export UCX_UD_VERBS_ETH_DGID_CHECK=n

# What the part began in the background, by name.
declare -A pids=()
# What the data plane's processes are started through.
wrapper=()

# spawn NAME COMMAND...: its output goes to a log of that name, in the part's directory.
spawn() {
    local name=$1
    shift
    "$@" >>"$dir/$name.log" 2>&1 &
    pids[$name]=$!
}

start_mds() {
    local n=$1
    spawn "mds-$n" "$OGIVE_BIN" mds --id "$n" --dir "$dir/mds-$n" \
        --peers 1=127.0.0.1:7001,2=127.0.0.1:7002,3=127.0.0.1:7003
}

# Chunkserver N, with its device unless UCX_NET_DEVICES says another.
start_chunkserver() {
    local n=$1
    UCX_NET_DEVICES=${UCX_NET_DEVICES:-rxe$n:1} spawn "chunkserver-$n" "${wrapper[@]}" \
        "$OGIVE_BIN" chunkserver --device "/dev/ram$n" --zone "zone-$n" \
        --listen "127.0.0.1:710$n" --buffers 64MiB
}

# A gateway of this name, with a device of its own unless UCX_NET_DEVICES says another; it takes the
# place of the one before.
start_gateway() {
    local name=${1:-gateway}
    socket=$dir/$name.nbd
    UCX_NET_DEVICES=${UCX_NET_DEVICES:-rxe$GATEWAY:1} spawn "$name" "${wrapper[@]}" "$OGIVE_BIN" \
        nbd --volume copy --volume load --socket "$socket" --buffers 64MiB
    eventually "socket of the $name" test -S "$socket"
}

# Ends a process as its operator would.
stop() {
    kill "${pids[$1]}"
    wait "${pids[$1]}" || fail "$1 did not end in order"
    unset "pids[$1]"
}

uri() { echo "nbd+unix:///$1?socket=$socket"; }

# Whether the cluster as a whole is in this state; parts of it have a `health` too.
is() { [[ $("$OGIVE_BIN" status --json 2>/dev/null) =~ ^[^[]*\"health\":\"$1\" ]]; }

prepare_devices() {
    for n in 1 2 3; do
        "$OGIVE_BIN" format --shards 1 --log-size 64MiB --quick --force "/dev/ram$n" \
            >>"$dir/format.log" 2>&1 || fail "format of /dev/ram$n"
    done
}

make_volumes() {
    eventually "a healthy cluster" is healthy
    "$OGIVE_BIN" volume create copy --size "${IMAGE_MIB}MiB" >/dev/null || fail "no volume"
    "$OGIVE_BIN" volume create load --size 64MiB >/dev/null || fail "no volume"
}

start_cluster() {
    prepare_devices
    for n in 1 2 3; do start_mds "$n"; done
    for n in 1 2 3; do start_chunkserver "$n"; done
    make_volumes
    start_gateway
}

write_image() {
    head -c $((IMAGE_MIB << 20)) /dev/urandom >"$dir/image"
    timeout $LATE nbdcopy --flush "$dir/image" "$(uri copy)" || fail "nbdcopy in"
    say "wrote $IMAGE_MIB MiB"
}

# Copies the image out of the volume and compares.
compare() {
    timeout $LATE nbdcopy "$(uri copy)" - | cmp - "$dir/image" ||
        fail "what was read $1 is not what was written, or never came"
    say "read back $1: the same"
}

# Write, verify, kill a chunkserver under a verifying load, verify, bring it back, verify.
exercise() {
    write_image
    compare "at once"
    spawn load timeout $LATE "$OGIVE_BIN" bench volume --verify --reads 50 --depth 8 --seconds "$LOAD_SECONDS" \
        --range 8MiB "$(uri load)"
    sleep 0.5
    kill -9 "${pids[chunkserver-3]}"
    wait "${pids[chunkserver-3]}" 2>/dev/null
    say "killed chunkserver-3 under load"
    eventually "a degraded cluster" is degraded
    wait "${pids[load]}" || fail "the verifying load: $(tail -n 3 "$dir/load.log")"
    unset 'pids[load]'
    compare "without chunkserver-3"
    start_chunkserver 3
    eventually "a healthy cluster again" is healthy
    compare "after its return"
}

# The log line of every connection names its path; all of them must be this one, and some exist.
paths_are() {
    local log
    for log in gateway chunkserver-1 chunkserver-2 chunkserver-3; do
        grep -q "path=$1" "$dir/$log.log" || fail "no connection of $log over $1"
        grep -Eo 'path=[a-z]+' "$dir/$log.log" | grep -v "path=$1" &&
            fail "$log has a connection that is not over $1"
    done
    return 0
}
