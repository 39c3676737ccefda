# Builds OCI layouts layer by layer from Debian's packages. Sourced after lib.sh by the scripts
# that make images. A build is a directory with `layout` (the OCI layout), `bundle/rootfs` (its
# root, unpacked) and `apt` (the sources and lists that its packages come from); `layout`, `root`
# and `apt` name those of the build in hand.
# shellcheck shell=bash

# layers_begin BUILD: an empty image, tag "latest"; what follows works on it.
layers_begin() {
    need mmdebstrap=mmdebstrap umoci=umoci jq=jq unshare=util-linux
    layout=$1/layout bundle=$1/bundle root=$1/bundle/rootfs apt=$1/apt
    mkdir -p "$1"
    umoci init --layout "$layout"
    umoci new --image "$layout:latest"
    umoci unpack --image "$layout:latest" "$bundle"
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

# apt_get ARGUMENT…: for the packages of the root, with the build's own sources and lists: the
# host may be of another suite, and its apt stays as it is.
apt_get() {
    apt-get -qq -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$apt/sources" \
        -o Dir::State="$apt" -o Dir::State::status="$root/var/lib/dpkg/status" -o Dir::Cache="$apt" \
        -o Debug::NoLocking=1 -o APT::Sandbox::User=root "$@"
}

# add PACKAGE…: as apt would install, without the network inside; makes no layer.
add() {
    rm -rf "$apt/archives"
    mkdir -p "$apt/archives/partial" "$root/tmp/debs"
    apt_get install -y --no-install-recommends --download-only "$@" >/dev/null
    mv "$apt"/archives/*.deb "$root/tmp/debs/"
    inside /bin/sh -c 'dpkg --force-depends -i /tmp/debs/*.deb' >/dev/null 2>&1
    inside dpkg --configure -a >/dev/null
    rm -rf "$root/tmp/debs"
}

# install PACKAGE…: add, as a layer.
install() {
    add "$@"
    layer "install $*"
}

# debian_sources SUITE DIRECTORY: the sources of this host's Debian 12, for that suite.
debian_sources() {
    local from
    mkdir -p "$2"
    for from in /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources; do
        [ ! -s "$from" ] || sed "s/bookworm/$1/g" "$from" > "$2/debian.${from##*.}"
    done
    [ -n "$(ls "$2")" ] || echo "deb http://deb.debian.org/debian $1 main" > "$2/debian.list"
}

# debian_root SUITE DIRECTORY PACKAGE…: a root of that suite with packages, in one piece.
debian_root() {
    local suite=$1 directory=$2 work
    shift 2
    need mmdebstrap=mmdebstrap
    work=$(mktemp -d)
    debian_sources "$suite" "$work/sources"
    if ! cat "$work"/sources/* | mmdebstrap --quiet --variant=minbase --mode=root --include="$(IFS=,; echo "$*")" \
        "$suite" "$work/root" -; then
        rm -rf --one-file-system "$work"
        die "no Debian $suite from the sources in /etc/apt (apt says why above); name ones there that have it"
    fi
    mkdir -p "$(dirname "$directory")"
    rm -rf --one-file-system "$directory"
    mv "$work/root" "$directory"
    rm -rf --one-file-system "$work"
}

# base [SUITE]: Debian, bookworm unless said otherwise, from where this host's bookworm comes from.
base() {
    local suite=${1:-bookworm} tar=$apt/base.tar
    mkdir -p "$apt/lists/partial"
    debian_sources "$suite" "$apt/sources"
    apt_get update || die "no lists of Debian $suite from the sources in /etc/apt (apt says why above);" \
        "name ones there that have it, or update debian-archive-keyring where a key is missing"
    cat "$apt"/sources/* | mmdebstrap --quiet --variant=minbase --mode=root "$suite" "$tar" -
    tar -C "$root" -xpf "$tar" --xattrs --xattrs-include='*' --exclude='./dev/*'
    rm "$tar"
    layer "Debian $suite, minbase"
}

# layers_end DIRECTORY: the finished layout goes there.
layers_end() {
    umoci gc --layout "$layout" >/dev/null 2>&1
    mkdir -p "$(dirname "$1")"
    mv "$layout" "$1"
    say "image: $(du -sh "$1" | cut -f1) compressed, $(du -sh "$root" | cut -f1) unpacked, $(jq '.layers | length' "$1/blobs/sha256/$(jq -r '.manifests[0].digest' "$1/index.json" | cut -d: -f2)") layers"
}
