# What the scripts that start proxies have in common: their options, and the server behind them.
# shellcheck shell=bash
set -euo pipefail
PATH=$PATH:/usr/sbin

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# Takes the options of every contestant, and --backend PROGRAM, which is started on as many threads.
# Sets `listen`, `threads`, `certificate`, `key` and, where that can be reached, `backend`.
start_backend() {
    local program=
    while (($# > 0)); do
        case $1 in
            --listen) listen=$2 ;;
            --threads) threads=$2 ;;
            --tls-cert) certificate=$2 ;;
            --tls-key) key=$2 ;;
            --backend) program=$2 ;;
            *) echo "unknown option $1" >&2 && exit 2 ;;
        esac
        shift 2
    done
    : >"$folder/backend" # it must be there before the other process opens it
    "$program" --listen 127.0.0.1:0 --threads "$threads" >"$folder/backend" &
    local tries
    for ((tries = 0; tries < 500; tries++)); do
        backend=$(sed -n 's/^listening on //p' "$folder/backend")
        [[ -z $backend ]] || return 0
        sleep 0.01 # sleep: the other process tells by a line in a file
    done
    echo "the server behind the proxy does not listen" >&2
    exit 1
}
