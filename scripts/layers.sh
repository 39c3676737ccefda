# Builds OCI layouts layer by layer from Debian's packages. Sourced after lib.sh by the scripts
# that make images. A build is a directory with `layout` (the OCI layout) and `bundle/rootfs`
# (its root, unpacked); `layout` and `root` name those of the build in hand.
# shellcheck shell=bash

# layers_begin BUILD: an empty image, tag "latest".
layers_begin() {
    need mmdebstrap=mmdebstrap umoci=umoci jq=jq unshare=util-linux
    layers_use "$1"
    mkdir -p "$1"
    umoci init --layout "$layout"
    umoci new --image "$layout:latest"
    umoci unpack --image "$layout:latest" "$bundle"
}

# layers_use BUILD: what follows works on this build.
layers_use() {
    layout=$1/layout bundle=$1/bundle root=$1/bundle/rootfs
}

# layers_copy BUILD: goes on in a copy of the build in hand, which shares its layers.
layers_copy() {
    local from
    from=$(dirname "$layout")
    cp -a "$from" "$1"
    layers_use "$1"
}

# layer NAME: what changed in the root since the last one.
layer() {
    umoci repack --image "$layout:latest" --refresh-bundle \
        --history.created_by "$1" "$bundle" >/dev/null 2>&1
    say "  layer: $1"
}

# inside COMMAND…: runs in the root, with a /proc of its own that leaves nothing behind.
inside() {
    unshare --fork --pid --mount-proc="$root/proc" \
        chroot "$root" /usr/bin/env DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 "$@"
}

# add PACKAGE…: as apt would install, without the network inside; makes no layer.
add() {
    local debs
    debs=$(dirname "$layout")/debs
    rm -rf "$debs"
    mkdir -p "$debs/partial"
    apt-get -qq -o Dir::State::status="$root/var/lib/dpkg/status" -o Dir::Cache::archives="$debs" \
        -o Debug::NoLocking=1 -o APT::Sandbox::User=root -o Dir::Etc::apt.conf.d::keep= \
        install -y --no-install-recommends --download-only "$@" >/dev/null
    mkdir -p "$root/tmp/debs"
    mv "$debs"/*.deb "$root/tmp/debs/"
    inside /bin/sh -c 'dpkg --force-depends -i /tmp/debs/*.deb' >/dev/null 2>&1
    inside dpkg --configure -a >/dev/null
    rm -rf "$root/tmp/debs" "$debs"
}

# install PACKAGE…: add, as a layer.
install() {
    add "$@"
    layer "install $*"
}

# base: Debian bookworm from the sources that this host uses.
base() {
    local sources tar
    tar=$(dirname "$layout")/base.tar
    apt-get -qq update || true
    sources=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources 2>/dev/null || true)
    [ -n "$sources" ] || sources="deb http://deb.debian.org/debian bookworm main"
    printf '%s\n' "$sources" | mmdebstrap --quiet --variant=minbase --mode=root bookworm "$tar" -
    tar -C "$root" -xpf "$tar" --xattrs --xattrs-include='*' --exclude='./dev/*'
    rm "$tar"
    layer "Debian bookworm, minbase"
}

# layers_end DIRECTORY: the finished layout goes there.
layers_end() {
    umoci gc --layout "$layout" >/dev/null 2>&1
    mkdir -p "$(dirname "$1")"
    mv "$layout" "$1"
    say "image: $(du -sh "$1" | cut -f1) compressed, $(du -sh "$root" | cut -f1) unpacked, $(jq '.layers | length' "$1/blobs/sha256/$(jq -r '.manifests[0].digest' "$1/index.json" | cut -d: -f2)") layers"
}
