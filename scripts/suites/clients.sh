# shellcheck shell=bash
#
# For clients and http-clients, which source it: what they install, what they start, and what a case is made
# of. What arrived is checked by digest or by equality. Every client that is served also has to leave its
# session in tabi's log, so that one that went around the proxy does not count.
#
# What is missing is installed and kept: Debian's packages in the system, which takes root, and the rest
# under target/client-tests. With --small nothing large is installed.

# shellcheck source=scripts/suites/needs.sh
source "$(dirname "${BASH_SOURCE[0]}")/needs.sh"

clients=$project/scripts/suites/client-programs
installed=$(dirname "$built")/client-tests
PATH=$installed/python/bin:$installed/cargo/bin:$PATH
export NODE_PATH=$installed/node_modules

small=
[[ ${1-} != --small ]] || small=yes

# ---- What is installed beside Debian's packages --------------------------------------------------

install() { # WHAT COMMAND...: says nothing unless it fails.
    local what=$1 said
    shift
    said=$(timeout -k 5 400 nice -n 10 "$@" 2>&1) ||
        printf '%s could not be installed:\n%s\n' "$what" "$(tail -n 5 <<<"$said")"
}

python=$installed/python/bin/python
python3 -c 'import ensurepip' 2>/dev/null || optional+=(python3-venv)

is_version() { # PYTHON-PACKAGE VERSION
    "$python" -c 'import sys; from importlib.metadata import version
sys.exit(version(sys.argv[1]) != sys.argv[2])' "$@" 2>/dev/null
}

python_package() { # NAME VERSION
    python3 -c 'import ensurepip' 2>/dev/null || return 0
    [ -x "$python" ] || install 'a place for Python packages' python3 -m venv "$installed/python"
    [ ! -x "$python" ] || is_version "$@" || install "$1" "$python" -m pip install -q "$1==$2"
}

is_node_version() { # NODE-PACKAGE VERSION
    here node && grep -qs "\"version\": \"$2\"" "$NODE_PATH/$1/package.json"
}

node_package() { # NAME VERSION
    ! here npm || is_node_version "$@" || install "npm $1" npm install --silent --prefix "$installed" "$1@$2"
}

compiled() { # COMPILER SOURCE RESULT COMMAND...: makes RESULT, unless it is newer than SOURCE
    # -nt is true as well when there is no result yet.
    if here "$1" && [ "$clients/$2" -nt "$installed/$3" ]; then install "$2" "${@:4}"; fi
}

# ---- Targets and proxies -------------------------------------------------------------------------

# Another library put in front of the clients, or git settings of the machine's own, would change what
# is tested.
unset LD_PRELOAD
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 GIT_TERMINAL_PROMPT=0

comes() { # PATTERN FILE
    wait_for 10 grep -qs "$1" "$2" && return
    echo "nothing like '$1' came within ten seconds; this did:"
    tail -n 5 "$2"
    return 1
}

# shellcheck disable=SC2154  # It is the folder of checks.sh.
make_blob() {
    head -c 5000000 /dev/urandom >"$tmp/blob"
    digest=$(sha256sum <"$tmp/blob")
}

make_repository() {
    git init -q -b main "$tmp/source"
    git -C "$tmp/source" config user.name 'client tests'
    git -C "$tmp/source" config user.email client-tests@localhost
    for n in 1 2 3; do
        head -c 300000 /dev/urandom >"$tmp/source/file-$n"
        git -C "$tmp/source" add .
        git -C "$tmp/source" commit -qm "Commit $n"
    done
    git clone -q --bare "$tmp/source" "$tmp/repository.git"
    git -C "$tmp/repository.git" config http.receivepack true
}

start_targets() { # DIRECTORY [ADDRESS]
    python3 "$clients/targets.py" "$@" >"$tmp/ports" 2>"$tmp/targets.log" &
    started+=($!)
    comes . "$tmp/ports"
}

# Spaces, a colon and a percent sign: what a password may hold and clients have to pass on.
# shellcheck disable=SC2034  # The suites use it.
readonly PASSWORD='open: 22% sesame' IN_A_URL='open%3A%2022%25%20sesame'

make_users() {
    (umask 077 && printf '# of this run only\nalice:%s\nbob:plain\ncarol:plain\n' "$PASSWORD" >"$tmp/users")
}

# shellcheck disable=SC2034  # The suites use the port.
start_proxy() { # LOG ARGUMENT...
    local log=$tmp/$1.log
    shift
    run_tabi "$@" 2>"$log" &
    started+=($!)
    comes 'listening on' "$log" || return
    port=$(sed -n 's/.*listening on .*:\([0-9]*\).*/\1/p;T;q' "$log")
}

# ---- What a case is made of ----------------------------------------------------------------------

# The cases after this line use these clients.
skipped=
uses() { # CLIENT...
    skipped=
    has "$@" || skipped=yes
}

# And speak this to tabi.
protocol=socks5
speaks() { # PROTOCOL
    protocol=$1
}

check() { # NAME FUNCTION ARGUMENT...
    local name=$1 status
    shift
    [ -z "$skipped" ] || return 0
    open_mark=$(wc -l <"$tmp/open.log") users_mark=$(wc -l <"$tmp/users.log")
    # Not as a condition: bash ignores set -e inside of one.
    (set -e && "$@") >"$tmp/said" 2>&1
    status=$?
    if [ $status -eq 0 ]; then
        ok "$name"
    else
        fail "$name" "$(tail -n 8 "$tmp/said" | sed 's/[^[:print:]\t]/?/g' | cut -c 1-300)"
    fi
}

client() { # Every client has a limit; COMMAND...
    timeout -k 2 "${limit:-30}" "$@"
}

sessions() { # LOG COMMAND [DESTINATION [USER]]: the lines of such sessions that this case has brought
    local mark=${1}_mark
    tail -n "+$((${!mark} + 1))" "$tmp/$1.log" | grep -F " protocol=$protocol command=$2 " |
        grep -F "dest=${3:-}" | grep -F "user=${4:-}"
}

# A session line comes when the session has ended, a moment after its client.
through() { # LOG COMMAND [DESTINATION [USER]]
    local destination=${3:-} user=${4:-}
    wait_for 10 sessions "$@" >/dev/null && return
    echo "the proxy has no session by $protocol for $2 ${destination:-anywhere} ${user:+by $user}; its log says:"
    tail -n "+$((open_mark + 1))" "$tmp/open.log"
    tail -n "+$((users_mark + 1))" "$tmp/users.log"
    return 1
}

same_blob() { # FILE
    same_digest "$(sha256sum <"$1")" && return
    echo "$(wc -c <"$1") octets came, $(wc -c <"$tmp/blob") were sent"
    return 1
}

same_digest() { # DIGEST of what should be the blob
    [ "${1%% *}" = "${digest%% *}" ] && return
    echo "what came has the digest $1, what was sent $digest"
    return 1
}

fails_with() { # STATUS COMMAND...
    local expected=$1 status=0
    shift
    client "$@" || status=$?
    [ $status -eq "$expected" ] && return
    echo "ended with $status, $expected expected"
    return 1
}

fails_saying() { # WORDS COMMAND...
    local words=$1 status=0
    shift
    client "$@" >"$tmp/came" 2>&1 || status=$?
    cat "$tmp/came"
    [ $status -ne 0 ]
    grep -qF -e "$words" "$tmp/came"
}

# Clients that are a file of ours around a library: they compare themselves, and say "same".
says_same() { # COMMAND...
    client "$@" | tee "$tmp/came"
    [ "$(tail -n 1 "$tmp/came")" = same ]
}

not_asked_for() { # PATH: the target never saw a request for it
    ! grep -qsF "$1" "$tmp/requests" && return
    echo "the target was asked for $1"
    return 1
}

git_clones_and_pushes() { # LOG COMMAND URL DESTINATION USER GIT-OPTION...
    local git=(client git "${@:6}" -C "$tmp")
    rm -rf "$tmp/clone"
    "${git[@]}" clone -q "$3/repository.git" clone
    git=(client git "${@:6}" -c user.name=clone -c user.email=clone@localhost -C "$tmp/clone")
    [ "$("${git[@]}" rev-parse HEAD)" = "$(git -C "$tmp/repository.git" rev-parse main)" ]
    "${git[@]}" fsck --full --strict
    # More than http.postBuffer, which is 1 MiB: git sends it chunked.
    head -c 3000000 /dev/urandom >"$tmp/clone/file-1"
    "${git[@]}" commit -qam 'Commit from the clone'
    "${git[@]}" push -q origin main
    [ "$("${git[@]}" rev-parse HEAD)" = "$(git -C "$tmp/repository.git" rev-parse main)" ]
    git -C "$tmp/repository.git" fsck --full --strict
    through "$1" "$2" "$4" "$5"
}

# A page of fifty parts that are fetched at once, sent back, and compared by the target.
fifty_parts() {
    local same
    same=$(grep -c '^POST /part/[0-9]* 200' "$tmp/requests") || true
    [ "$same" -eq 50 ] && return
    echo "$same parts of fifty came back unchanged"
    return 1
}

# Chromium keeps loopback from its proxy unless it is told otherwise.
chromium_loads_fifty_parts() { # URL ARGUMENT...
    : >"$tmp/requests"
    limit=60 client python3 "$clients/chromium.py" "$tmp" "$@"
    fifty_parts
}

# ---- The end -------------------------------------------------------------------------------------

# Names the clients that were not here. Of these some are installed only when they are asked for.
tell_absent() { # UNASKED-CLIENT...
    local one unasked=() unobtainable=()
    for one in "${absent[@]}"; do
        if [[ -n $small && " $* " == *" $one "* ]] && can_install; then
            unasked+=("$one")
        else
            unobtainable+=("$one")
        fi
    done
    name_absent clients "${unobtainable[@]}"
    ((${#unasked[@]} == 0)) ||
        leave_out "${#unasked[@]} of ${#programs[@]} clients are installed only by \`scripts/test clients\`: $(list "${unasked[@]}")"
}
