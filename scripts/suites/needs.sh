# shellcheck shell=bash
#
# What a suite needs before it begins, for those beside this file, which source it: to be root, Debian's
# packages, a network of its own, and the programs that are tested. And what it can do without.
#
# TABI and ORIGIN name two of these programs; what is not named is built.

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# What cargo installs is there, which a shell that is not a login shell does not always know.
PATH=${CARGO_HOME:-${HOME-}/.cargo}/bin:$PATH:/usr/sbin:/sbin

stop() { # WHY
    echo "$(basename "$0"): $1" >&2
    exit 1
}

# A suite that cannot run on this machine has not failed.
cannot() { # WHY
    leave_out "$(basename "$0") cannot run here: $1" >&2
    exit 77
}

# Says what is left out; and scripts/test, which names the file, says it again at its end.
leave_out() { # WHAT
    echo "$1"
    [[ -z ${LEFT_OUT-} ]] || echo "$1" >>"$LEFT_OUT"
}

need_root() { # WHAT-FOR
    ((EUID == 0)) || cannot "it $1, which needs root. Run: sudo bash $0"
}

# ---- Debian's packages --------------------------------------------------------------------------

packages=()

need() { # COMMAND PACKAGE...
    type -P "$1" >/dev/null || packages+=("${@:2}")
}

# What the suite can do without.
optional=()

want() { # COMMAND PACKAGE...
    type -P "$1" >/dev/null || optional+=("${@:2}")
}

apt_install() { # PACKAGE...
    DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=300 \
        install --no-install-recommends "$@" >/dev/null
}

can_install() { ((EUID == 0)) && command -v apt-get >/dev/null; }

# Installs what is needed and not there; and what is optional, each package by itself, as not every system has all.
install_packages() {
    ((${#packages[@]} + ${#optional[@]})) || return 0
    if can_install; then
        apt-get -qq update
    elif ((${#packages[@]} == 0)); then
        return
    elif command -v apt-get >/dev/null; then
        cannot "packages are missing. Run: sudo apt-get install --no-install-recommends ${packages[*]}"
    else
        cannot "there is no apt-get to install these Debian packages: ${packages[*]}"
    fi
    ((${#packages[@]} == 0)) || apt_install "${packages[@]}" || cannot "${packages[*]} cannot be installed."
    local package
    for package in "${optional[@]}"; do
        apt_install "$package" 2>/dev/null || echo "$package cannot be installed."
    done
}

# Where this machine has Debian from.
debian_mirror() {
    local mirror
    # shellcheck disable=SC2016  # apt expands this.
    mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Label: Debian' | head -n 1)
    echo "${mirror:-http://deb.debian.org/debian}"
}

# ---- Programs that are left out -----------------------------------------------------------------

# Those that a suite uses, and those of them that are not here.
programs=() absent=()

program() { # NAME COMMAND...: the command succeeds if the program is here
    programs+=("$1")
    "${@:2}" >/dev/null 2>&1 || absent+=("$1")
}

here() { type -P "$@" >/dev/null; } # COMMAND...

has() { # NAME...
    local name one
    for name; do
        for one in "${absent[@]}"; do [[ $one != "$name" ]] || return; done
    done
}

list() { # NAME...
    local names
    names=$(printf ', %s' "$@")
    echo "${names:2}"
}

# The last line of a suite that is without some of its programs.
name_absent() { # WHAT-THEY-ARE NAME...
    (($# > 1)) || return 0
    local are=are why
    (($# > 2)) || are=is
    if can_install; then
        why="not to be had here"
    elif command -v apt-get >/dev/null; then
        why="not here, and only root can install them"
    else
        why="not here"
    fi
    leave_out "$(($# - 1)) of ${#programs[@]} $1 $are $why: $(list "${@:2}")"
}

# ---- A network ----------------------------------------------------------------------------------

# Starts the suite anew in a network of its own, with mounts of its own, unless it is there already.
enter_network() { # SECONDS ARGUMENT...
    if [[ -z ${IN_NETWORK-} ]]; then
        unshare --net --mount true 2>/dev/null || cannot "this machine allows no network namespace."
        exec timeout -k 10 "$1" env IN_NETWORK=yes unshare --net --mount bash "$0" "${@:2}"
    fi
    ip link set lo up
}

# The environment's proxies, which a build may need, would decide for the clients what goes where.
forget_proxies() {
    unset http_proxy https_proxy ftp_proxy all_proxy no_proxy
    unset HTTP_PROXY HTTPS_PROXY FTP_PROXY ALL_PROXY NO_PROXY
}

# ---- Programs -----------------------------------------------------------------------------------

# Where cargo puts a release build. BusyBox's realpath(1) fails where nothing is.
built=${CARGO_TARGET_DIR:-target}/release
[[ $built == /* ]] || built=$project/$built
load=$project/scripts/load/target/release/load

build_tabi() {
    if [[ -z ${TABI-} ]]; then
        (cd "$project" && cargo build --quiet --release --locked --bin tabi) || exit 1
        TABI=$built/tabi
    fi
    TABI=$(realpath "$TABI") || exit 1
    export TABI
}

build_origin() {
    if [[ -z ${ORIGIN-} ]]; then
        (cd "$project" && cargo build --quiet --release --locked --example origin) || exit 1
        ORIGIN=$built/examples/origin
    fi
}

build_load() {
    cargo build --quiet --release --locked --manifest-path "$project/scripts/load/Cargo.toml" \
        --target-dir "$project/scripts/load/target" || exit 1
}

# Becomes the part of the load generator that tries one tabi in one way.
become_load() { # PART ARGUMENT...
    build_tabi
    build_load
    cd "$project" || exit 1
    exec "$load" "$1" --tabi "$TABI" "${@:2}"
}
