# shellcheck shell=bash
#
# For the suites beside this file, which source it: counts the cases, and starts and ends processes. Each
# process is waited for within a limit and ended by its id. Sources needs.sh, too.

# shellcheck source=scripts/suites/needs.sh
source "$(dirname "${BASH_SOURCE[0]}")/needs.sh"

# ---- Cases and how they are counted -------------------------------------------------------------

passed=0
failed=0

ok() {
    passed=$((passed + 1))
    echo "ok   $1"
}

fail() { # CASE WHY
    failed=$((failed + 1))
    echo "FAIL $1"
    printf '%s\n' "$2" | sed 's/^/       /'
}

same() { # CASE EXPECTED FOUND
    if [[ $3 == "$2" ]]; then ok "$1"; else fail "$1" "expected: $2"$'\n'"found:    $3"; fi
}

matches() { # CASE REGULAR-EXPRESSION FOUND
    if [[ $3 =~ $2 ]]; then ok "$1"; else fail "$1" "expected: $2"$'\n'"found:    $3"; fi
}

# The last line of a suite, and its exit status.
verdict() {
    echo "$passed passed, $failed failed"
    ((failed == 0))
}

# ---- Processes ----------------------------------------------------------------------------------

tmp=$(mktemp -d)
# The processes that end_all ends, beside the server.
started=()

# The origin ends when the writing end of this pipe closes, even if this script is killed.
mkfifo "$tmp/life"
exec 9<>"$tmp/life"

wait_for() { # SECONDS COMMAND...
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS <= end)) || return 1
        sleep 0.05
    done
}

gone() { ! kill -0 "$1" 2>/dev/null; }
lines() { (($(wc -l <"$2") >= $1)); }

end_all() {
    trap '' INT TERM HUP
    [[ -z $server ]] || stop_tabi
    local one
    for one in "${started[@]}"; do
        kill -TERM "$one" 2>/dev/null
        wait_for 3 gone "$one" || kill -KILL "$one"
        wait "$one" 2>/dev/null
    done
    rm -rf "$tmp"
}
trap end_all EXIT
trap 'exit 1' INT TERM HUP

# Starts an origin by a command that ends with its addresses, COUNT of them. FILE has then where it listens.
start_origin() { # FILE COUNT COMMAND...
    : >"$1"
    "${@:3}" <"$tmp/life" >"$1" 2>&1 9>&- &
    started+=($!)
    wait_for 10 lines "$2" "$1" || stop "the origin does not start: $(cat "$1")"
}

# ---- The server that is tested ------------------------------------------------------------------

server=
servers=0
log=

# The addresses that tabi logs at its start, one a line.
listening() { cat "$log"* | grep -o 'listening on .*' | grep -oE '(\[[0-9a-f:.]+\]|[0-9.]+):[0-9]+'; }
listens_on() { (($(listening | wc -l) >= $1)); }

# What tabi is started with; a suite may put another program in front of it.
run_tabi() { exec "$TABI" "$@"; }

start_tabi() { # NUMBER-OF-ADDRESSES ARGUMENT...
    local count=$1
    shift
    servers=$((servers + 1))
    log=$tmp/log.$servers
    : >"$log"
    run_tabi "$@" >"$log" 2>&1 9>&- &
    server=$!
    if ! wait_for 10 listens_on "$count"; then
        fail "tabi $* says within 10 s where it listens" "$(cat "$log")"
        exit 1
    fi
}

# Waits for tabi to end; `status` is then its exit status.
# shellcheck disable=SC2034  # The suites read it.
await_tabi() {
    wait_for 20 gone "$server" || kill -KILL "$server"
    wait "$server"
    status=$?
    server=
}

stop_tabi() {
    kill -TERM "$server" 2>/dev/null
    await_tabi
}

# ---- Restarts by SIGUSR2 -------------------------------------------------------------------------

# What the load generator is started by, where that is in another network.
beside=()

# Under 300 connections a second from one address, and beside a session that lasts: has the program started anew
# ten times, by a command that waits until it is.
restart_under_load() { # CASE PROXY COMMAND...
    local number runner
    "${beside[@]}" "$load" steady "$2" --client 127.0.0.1 --addresses 1 --rate 300 --seconds 15 --tunnel \
        >"$tmp/load" 2>&1 9>&- &
    runner=$!
    started+=("$runner")
    for number in {1..10}; do
        sleep 1
        "${@:3}" || { fail "$1: number $number" "no other process serves clients" && return 1; }
    done
    if gone "$runner"; then fail "$1 under load" "they took longer than the load"; fi
    wait "$runner"
    echo "     $(<"$tmp/load")"
    matches "$1: nobody is refused, p99 is below 50 ms, a tunnel lives on" \
        '^sessions=4[0-9]+ failed=0 .* p99=[0-4]?[0-9]\.' "$(<"$tmp/load")"
}
