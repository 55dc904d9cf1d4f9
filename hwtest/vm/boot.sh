#!/bin/bash
# Runs a command in a virtual machine with soft-RoCE devices, as root on a copy of this host's files:
# the root is shared read-only, what the command writes is gone afterwards.
#
# Usage: boot.sh [-t SECONDS] COMMAND [ARGUMENT...]
#   -t  bound for all of it (default 600)
# Exit code: the command's; 124 the bound was hit; 125 the machine died; 77 it cannot be had here,
# and the last line on stderr says why. The command sees the variables UCX_*, RUST_*, OGIVE_BIN,
# OGIVE_UCX_TESTS, OGIVE_RPC_TESTS, OGIVE_TRANSPORT and OGIVE_LOG of this environment.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
limit=600
while getopts t: option; do
    case $option in
        t) limit=$OPTARG ;;
        *) exit 2 ;;
    esac
done
shift $((OPTIND - 1))

# Emulation is slow, and a loaded host makes it slower; after this long it will not come up.
READY_LIMIT=$((180 * ${OGIVE_CI_STRETCH:-1}))
TRIES=3

say() { echo "vm: $*" >&2; }

for tool in qemu-system-x86_64 busybox cpio depmod xz zstd; do
    PATH=$PATH:/usr/sbin:/sbin command -v $tool >/dev/null || {
        echo "no $tool; .ci/install rdma" >&2
        exit 77
    }
done
kernel=$("$here/kernel.sh" "${OGIVE_VM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ogive-vm}")

run=$(mktemp -d "${TMPDIR:-/tmp}/ogive-vm.XXXXXX") qemu=''
stop() {
    [ -z "$qemu" ] || kill "$qemu" 2>/dev/null || true
    rm -rf "$run"
}
trap stop EXIT
trap 'exit 130' INT TERM
control=$run/control
mkdir "$control"
cp "$here/setup.sh" "$control/"
{
    for name in $(compgen -e | grep -E '^(UCX_|RUST_|OGIVE_(BIN|(UCX|RPC)_TESTS|TRANSPORT|LOG)$)'); do
        declare -p "$name"
    done
    printf 'cd %q\nexec' "$PWD"
    printf ' %q' "$@"
    echo
} >"$control/command"

# The guest's clock counts instructions, 1 ns each, and when nothing runs it goes to the next timer at
# once. So a loaded host makes the run longer, and no timeout in the guest ever expires for that. It
# takes one processor.
#
# Each byte of a `rep movsb` counts as an instruction. A processor that says those are fast (erms) has
# the kernel clear and copy with them, eight times slower than otherwise, for all packets.
args=(-accel "tcg,thread=single,tb-size=512" -icount "shift=0,sleep=off" -smp 1 -m 4096
    -machine "q35,hpet=off" -cpu "max,la57=off,erms=off,fsrm=off"
    -nodefaults -no-user-config -no-reboot -display none -monitor none -nic none
    -serial "file:$run/console" -device virtio-rng-pci
    -kernel "$kernel/vmlinuz" -initrd "$kernel/initrd"
    # Faults end the machine. Disks of memory of 512 MiB: /dev/ram1 and so on.
    -append "console=ttyS0 quiet panic=-1 oops=panic mitigations=off nokaslr tsc=reliable
        init_on_alloc=0 random.trust_cpu=on net.ifnames=0 brd.rd_nr=4 brd.rd_size=524288"
    -fsdev "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap"
    -device "virtio-9p-pci,fsdev=root,mount_tag=root"
    -fsdev "local,id=control,path=$control,security_model=none"
    -device "virtio-9p-pci,fsdev=control,mount_tag=control")

# Ends with the machine: 0 it left an exit code, 1 it did not come up, 2 it died or took too long.
attempt() {
    local ready_by=$((SECONDS + READY_LIMIT)) result=2
    : >"$control/output"
    qemu-system-x86_64 "${args[@]}" </dev/null >"$run/qemu" 2>&1 &
    qemu=$!
    tail -n +1 -s 0.2 -f --pid=$qemu "$control/output" &
    local tail=$!
    while kill -0 $qemu 2>/dev/null && [ $SECONDS -lt "$limit" ] && [ ! -e "$control/code" ] &&
        { [ -e "$control/ready" ] || [ $SECONDS -lt $ready_by ]; }; do
        sleep 0.1
    done
    kill $qemu 2>/dev/null || true
    wait $qemu 2>/dev/null || true
    wait $tail || true
    qemu=''
    if [ -e "$control/code" ]; then result=0; elif [ ! -e "$control/ready" ]; then result=1; fi
    return $result
}

SECONDS=0
for ((try = 1; try <= TRIES; try++)); do
    result=0
    attempt || result=$?
    # A command that began is not begun again: what ended the machine may be what it tests.
    { [ $result = 1 ] && [ $SECONDS -lt "$limit" ]; } || break
    say "attempt $try did not come up: $(tail -n 1 "$run/qemu" "$run/console" | tr -d '\r')"
done
[ ! -e "$control/ready" ] || say "guest ready after $(<"$control/ready") s, ran $SECONDS s in all"
[ "$result" != 0 ] || exit "$(<"$control/code")"
say "no exit code from the guest; the end of its console:"
tail -n 40 "$run/console" "$run/qemu" | tr -d '\r' >&2
if [ $SECONDS -ge "$limit" ]; then exit 124; else exit 125; fi
