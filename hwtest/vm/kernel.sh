#!/bin/bash
# Gets a kernel with soft-RoCE and makes an initramfs for it, both in a cache directory; nothing is
# installed on this host. Usage: kernel.sh CACHE    prints the directory with `vmlinuz` and `initrd`
#
# The kernel is Debian's: 6.1 of Debian 12 by default. With 6.12, UCX 1.13 aborts when an rc
# connection is torn down. Exit code 77: the package cannot be had here, and stderr says why.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=$1 package=${OGIVE_VM_KERNEL:-linux-image-amd64}

# What the guest loads, all of it before it leaves the initramfs: disks, the shares, and RDMA over
# virtual network cards with loss. rdma_rxe takes its checksums from the crypto modules.
MODULES="virtio_pci virtio_rng brd 9p 9pnet_virtio overlay crc32_generic crc32-pclmul
    veth bridge sch_netem udp_tunnel ip6_udp_tunnel ib_uverbs rdma_ucm rdma_rxe"

unavailable() {
    echo "$*" >&2
    exit 77
}

# The package behind a meta package: linux-image-amd64 depends on linux-image-6.1.0-N-amd64.
resolve() {
    local found
    found=$(apt-cache depends "$package" 2>/dev/null |
        sed -n 's/.*Depends: \(linux-image-[0-9][^ ]*\)$/\1/p' | head -n 1)
    echo "${found:-$package}"
}

download() {
    local name=$1 dir=$2
    # As root apt would drop to a user that may not write here.
    (cd "$dir" && apt-get -qq -o APT::Sandbox::User="$(id -un)" download "$name") >&2
}

unpack() {
    local name=$1 dir=$2 deb
    mkdir -p "$dir.part"
    download "$name" "$dir.part" || unavailable "kernel package $name cannot be downloaded"
    for deb in "$dir.part"/*.deb; do
        dpkg -x "$deb" "$dir.part"
        rm "$deb"
    done
    [ -d "$dir.part/lib/modules" ] || ln -s usr/lib "$dir.part/lib"
    ln "$dir.part"/boot/vmlinuz-* "$dir.part/vmlinuz"
    mv "$dir.part" "$dir"
}

initramfs() {
    local dir=$1 out=$2 version root module file
    version=$(basename "$dir"/lib/modules/*)
    root=$(mktemp -d "$cache/initramfs.XXXXXX")
    mkdir -p "$root"/{bin,dev,proc,sys,host,rw,new} "$root/lib/modules/$version"
    cp "$(command -v busybox)" "$root/bin/busybox"
    install -m 755 "$here/init.sh" "$root/init"
    echo "$MODULES" | xargs >"$root/modules"
    [ -e "$dir/lib/modules/$version/modules.dep" ] || depmod -b "$dir" "$version"
    for module in $MODULES; do
        modprobe -d "$dir" -S "$version" --ignore-install -D "$module" | sed -n 's/^insmod //p'
    done | sort -u | while read -r file; do
        # Debian 13 compresses its modules; the guest's busybox takes them as they are not.
        case $file in
            *.xz) xz -dc "$file" >"$root/lib/modules/$version/$(basename "${file%.xz}")" ;;
            *.zst) zstd -qdc "$file" >"$root/lib/modules/$version/$(basename "${file%.zst}")" ;;
            *) cp "$file" "$root/lib/modules/$version/" ;;
        esac
    done
    cp "$dir/lib/modules/$version"/modules.{builtin,builtin.modinfo,order} \
        "$root/lib/modules/$version/"
    depmod -b "$root" "$version"
    (cd "$root" && find . | cpio --quiet -o -H newc) >"$out.part"
    mv "$out.part" "$out"
    rm -rf "$root"
}

PATH=$PATH:/usr/sbin:/sbin
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
if command -v apt-get >/dev/null; then name=$(resolve); else
    unavailable "no apt-get here to download Debian's kernel package $package with"
fi
dir=$cache/$name
[ -d "$dir" ] || unpack "$name" "$dir"
# A change of the files that make the initramfs makes another one.
sum=$(cat "$0" "$here/init.sh" | sha256sum | cut -c1-12)
if [ ! -e "$dir/initrd-$sum" ]; then
    rm -f "$dir"/initrd*
    initramfs "$dir" "$dir/initrd-$sum"
    ln -sf "initrd-$sum" "$dir/initrd"
fi
echo "$dir"
