# shellcheck shell=bash
#
# For the suites and scripts/packaging/build, which work in a Debian 13 of their own and source this: makes
# the folders, mounts what they need, and runs commands in them. Sources checks.sh, too.
#
#   target/board-tests/box     Debian 13 with cargo, curl and git
#   target/board-tests/boards  the same with rustfmt, clippy, cross compilers and qemu
#
# What is mounted and started is in namespaces of the script, and so is gone when it ends, however it
# ends.

# shellcheck source=scripts/suites/needs.sh
source "$(dirname "${BASH_SOURCE[0]}")/needs.sh"

# The limits of one step and of all of them, in seconds.
readonly STEP=1800 WHOLE=7200

# Starts the script anew, in namespaces of its own, unless it is there already.
enter_namespaces() { # ARGUMENT...
    [[ -z ${IN_NAMESPACES-} ]] || return 0
    need_root "makes folders with other systems in them"
    command -v apt-get >/dev/null || cannot "it needs Debian or Ubuntu."
    need debootstrap debootstrap debian-archive-keyring
    install_packages
    unshare --mount --pid --fork true 2>/dev/null || cannot "this machine allows no namespaces."
    exec timeout --kill-after=10 $WHOLE setpriv --pdeathsig KILL \
        env IN_NAMESPACES=yes unshare --mount --propagation private --pid --fork --kill-child \
        bash "$0" "$@"
}

if [[ -n ${IN_NAMESPACES-} ]]; then
    # shellcheck source=scripts/suites/checks.sh
    source "$(dirname "${BASH_SOURCE[0]}")/checks.sh"
    folders=$project/target/board-tests
fi
# Where the source is copied to in each folder, and whose it is there.
readonly SOURCE=/home/user/tabi PERSON=1000:1000
export DEBIAN_FRONTEND=noninteractive

# ---- How this machine reaches the registries holds in the folders, too --------------------------

certificates=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
mapfile -d '' -t network < <(env --null |
    grep --null-data -E '^(https?_proxy|HTTPS?_PROXY|(all|no)_proxy|(ALL|NO)_PROXY|CARGO_(HTTP|NET|SOURCE)_[^=]*)=')

take_over_settings() { # FOLDER
    local folder=$folders/$1 cargo=${CARGO_HOME:-${HOME-}/.cargo}
    cp /etc/resolv.conf "$folder/etc/resolv.conf"
    printf '127.0.0.1 localhost\n::1 localhost\n' >"$folder/etc/hosts"
    apt-config dump --format '%f "%v";%n' Acquire | grep -iE '::(https?::|proxy|retries)' \
        >"$folder/etc/apt/apt.conf.d/90of-this-machine"
    # Other tables would choose linkers and wrappers that are not in the folder.
    mkdir -p "$folder/home/user/.cargo"
    cat "$cargo/config.toml" "$cargo/config" 2>/dev/null |
        awk '/^\[/ { kept = /^\[(source|http|net)[].]/ } kept' >"$folder/home/user/.cargo/config.toml"
    chown -R $PERSON "$folder/home/user/.cargo/config.toml"
    chown $PERSON "$folder/home/user" "$folder/home/user/.cargo"
}

# ---- Folders ------------------------------------------------------------------------------------

# Becomes the command, so that a process started with & is the one that gets its signals.
inside() { # FOLDER USER:GROUP HOME COMMAND...
    exec timeout --kill-after=10 $STEP chroot --userspec "$2" "$folders/$1" env --ignore-environment \
        PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME="$3" LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
        "${network[@]}" "${@:4}" 9>&-
}

as_root() { (inside "$1" 0:0 /root "${@:2}" </dev/null); }
# A line for a shell in the source, which gets the other words as its arguments.
as_user() { (inside "$1" $PERSON /home/user bash -c "cd $SOURCE && $2" bash "${@:3}" </dev/null); }

quietly() { # WHAT COMMAND...
    local what=$1 said
    shift
    echo "     $what"
    said=$("$@" 2>&1) || stop "$what failed:"$'\n'"$(tail -n 20 <<<"$said")"
}

add_packages() { # FOLDER PACKAGE...
    quietly "apt-get update in $1" as_root "$1" apt-get -qq update
    quietly "apt-get install in $1: ${*:2}" as_root "$1" apt-get -qq -y \
        install --no-install-recommends "${@:2}"
    # The package of this name has just written its own.
    [[ ! -e $certificates ]] || cp "$certificates" "$folders/$1/etc/ssl/certs/ca-certificates.crt"
}

make_box() {
    local mirror
    mirror=$(debian_mirror)
    if [[ ! -e $folders/box.made ]]; then
        rm -rf --one-file-system "$folders/box"
        quietly "debootstrap, from $mirror" timeout --kill-after=10 $STEP \
            debootstrap --variant=minbase trixie "$folders/box" "$mirror"
        as_root box useradd --uid 1000 --create-home --shell /bin/bash user || stop "no user can be made."
        touch "$folders/box.made"
    fi
    take_over_settings box
    mount_in box
    add_packages box ca-certificates cargo curl git
}

make_boards() {
    local architectures=("$@") architecture
    if [[ ! -e $folders/boards.made ]]; then
        rm -rf --one-file-system "$folders/boards"
        mkdir -p "$folders/boards"
        quietly "copying box to boards" bash -c "tar -C '$folders/box' --one-file-system --exclude=.$SOURCE -c . |
            tar -C '$folders/boards' -x"
        touch "$folders/boards.made"
    fi
    take_over_settings boards
    mount_in boards
    for architecture in "${architectures[@]}"; do
        as_root boards dpkg --add-architecture "$architecture"
    done
    add_packages boards ca-certificates cargo rustc libstd-rust-dev curl git rustfmt rust-clippy qemu-user \
        gcc-aarch64-linux-gnu libc6-dev-arm64-cross gcc-arm-linux-gnueabihf libc6-dev-armhf-cross \
        gcc-arm-linux-gnueabi libc6-dev-armel-cross
    # Only their files: as packages they would want the board's own LLVM and C library.
    # shellcheck disable=SC2016  # The shell inside expands this.
    quietly "libstd-rust-dev for ${architectures[*]}" as_root boards bash -euc '
        mkdir -p /var/cache/libstd && cd /var/cache/libstd
        for architecture; do
            apt-get -qq -o APT::Sandbox::User=root download "libstd-rust-dev:$architecture"
            newest=$(ls -t libstd-rust-dev_*_"$architecture".deb | head -n 1)
            dpkg-deb --extract "$newest" /
        done' bash "${architectures[@]}"
}

# In a folder that is no mount of its own no namespace can be made.
mount_in() { # FOLDER
    local folder=$folders/$1
    if ! mount --bind "$folder" "$folder" || ! mount -t proc proc "$folder/proc" ||
        ! mount --rbind /dev "$folder/dev"; then
        stop "nothing can be mounted here."
    fi
}

# What an earlier run has built stays.
copy_source() { # FOLDER
    local source=$folders/$1$SOURCE
    mkdir -p "$source"
    find "$source" -mindepth 1 -maxdepth 1 ! -name target -exec rm -rf {} +
    tar -C "$project" --exclude-vcs --exclude=./target --exclude=./scripts/load/target -c . |
        tar -C "$source" -x --touch
    chown $PERSON "$folders/$1/home/user"
    chown -R $PERSON "$source"
}

# Nobody else may work in the folders meanwhile.
take_folders() {
    mkdir -p "$folders"
    exec 8>"$folders/lock"
    flock --nonblock 8 || stop "another run uses $folders."
}
