#!/bin/bash
# Goes on in the guest where init.sh ends, on the host's own files: makes the RDMA devices, runs the
# command, leaves its exit code in the control directory and switches the machine off.
#
# Four network cards nic1..nic4 on one bridge, each with a soft-RoCE device rxe1..rxe4: one for each
# server of a cluster. All packets between two devices cross the cards and the bridge, so that tc can
# lose some; between processes on one device soft-RoCE would hand them over directly.
exec </dev/null >/dev/console 2>&1
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb
CONTROL=/run/vm CARDS=4

finish() {
    echo "$1" >$CONTROL/code.part
    mv $CONTROL/code.part $CONTROL/code
    echo "vm: exit code $1"
    echo o >/proc/sysrq-trigger
    sleep 60
}

card() {
    local nic=nic$1 setting
    ip link add "$nic" mtu 9000 type veth peer name "port$1" mtu 9000 || return
    # All cards are in one namespace: an address answers on its own card only, and packets from
    # addresses of this machine are taken from the wire.
    for setting in accept_local=1 rp_filter=0 arp_ignore=1 arp_announce=2; do
        echo "${setting#*=}" >"/proc/sys/net/ipv4/conf/$nic/${setting%=*}"
    done
    ip link set "port$1" master wire up
    ip link set "$nic" up
    ip addr add "10.9.0.$1/24" dev "$nic"
    rdma link add "rxe$1" type rxe netdev "$nic"
}

# As if the servers had met over TCP on these cards before, which here goes over loopback: while the
# kernel asks for a neighbour's address, it blocks the first RDMA connection to it for half a second.
acquaint() {
    local n m
    for n in $(seq $CARDS); do
        for m in $(seq $CARDS); do
            [ "$n" = "$m" ] || ip neigh replace "10.9.0.$m" dev "nic$n" nud permanent \
                lladdr "$(<"/sys/class/net/nic$m/address")" || return
        done
    done
}

hostname vm
ulimit -n 65536
# What a test wants less of it lowers itself.
ulimit -l unlimited
ip link set lo up
ip link add wire mtu 9000 type bridge
ip link set wire up
echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter
for n in $(seq $CARDS); do
    card "$n" || finish 125
done
acquaint || finish 125
# Begun by init.sh: from here on idle time is skipped.
kill "$BUSY"
read -r up _ </proc/uptime
echo "${up%.*}" >$CONTROL/ready
bash $CONTROL/command >>$CONTROL/output 2>&1
finish $?
