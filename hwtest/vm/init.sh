#!/bin/busybox sh
# shellcheck shell=dash
#
# First process of the guest: loads all modules, puts a writable layer of memory over the host's
# root, and goes on there with setup.sh. Whatever fails ends the machine; the console says what.
/bin/busybox --install -s /bin
export PATH=/bin

fail() {
    echo "vm: $*"
    reboot -f
}

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in $(cat /modules); do
    modprobe "$module" || echo "vm: no module $module"
done
# The guest's clock leaps over idle time, also over that in which the host reads a file for it.
while :; do :; done &
export BUSY=$!
share=trans=virtio,version=9p2000.L,msize=262144
mount -t 9p -o "ro,cache=loose,$share" root /host || fail "no root share"
mount -t tmpfs -o size=60% rw /rw
mkdir /rw/upper /rw/work
mount -t overlay -o lowerdir=/host,upperdir=/rw/upper,workdir=/rw/work root /new ||
    fail "no overlay over the root"
for dir in proc sys dev run tmp; do
    mkdir -p "/new/$dir"
done
mount -t proc proc /new/proc
mount -t sysfs sys /new/sys
mount -t devtmpfs dev /new/dev
mkdir -p /new/dev/shm /new/dev/pts
mount -t tmpfs -o mode=1777 shm /new/dev/shm
mount -t tmpfs run /new/run
mkdir /new/run/vm
mount -t 9p -o "cache=none,$share" control /new/run/vm || fail "no control share"
exec switch_root /new /bin/bash /run/vm/setup.sh
