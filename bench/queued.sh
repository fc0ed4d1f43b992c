#!/usr/bin/env bash
# Memory of a queued recipient: messages to a next hop that is down, then to one that answers 450; resident
# memory of the daemon with all of them queued less that of a fresh one.
#
#   bench/queued.sh [--count 1000000] [--size 1024] [--way dead|deferred|both] [--dir DIR]
#
# Needs smtp-source and smtp-sink. ZMAILER in the environment names a binary that is built already.
set -euo pipefail
cd "$(dirname "$0")/.."
. bench/common.sh

COUNT=1000000 SIZE=1024 WAY=both SESSIONS=50 POSTFIX=no JSON="" DIR=target/bench/queued
while [ $# -gt 0 ]; do
    case $1 in
        --count) COUNT=$2; shift ;;
        --size) SIZE=$2; shift ;;
        --way) WAY=$2; shift ;;
        --dir) DIR=$2; shift ;;
        *) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 64 ;;
    esac
    shift
done
ZMAILER_MORE='[[scheduler.rule]]
match = "*"
retry = ["1h"]'

rss_kib() { awk '/^VmRSS/ {print $2}' "/proc/$DAEMON/status"; }

# Waits until every queued recipient has been tried once, or the next hop is known to be down.
wait_until_settled() {
    local before=-1 now
    for _ in $(seq 600); do
        now=$(ticks_of "$DAEMON")
        [ $((now - before)) -gt 2 ] || return 0
        before=$now
        sleep 1
    done
}

one_way() {
    local fresh full took
    if [ "$1" = deferred ]; then
        SINK_OPTIONS=(-r rcpt)
        start_sink
    fi
    start_zmailer sync
    sleep 1
    fresh=$(rss_kib)
    took=$(date +%s)
    child smtp-source -d -s "$SESSIONS" -l "$SIZE" -m "$COUNT" -f a@source.example -t "$TO" \
        "127.0.0.1:$SOURCE_PORT"
    took=$(($(date +%s) - took))
    wait_until_settled
    full=$(rss_kib)
    echo "$1: $COUNT messages in $took s, $(status_number queue recipients) queued;" \
        "RSS $fresh KiB fresh, $full KiB now, $(((full - fresh) * 1024 / COUNT)) bytes a recipient"
    took=$(date +%s%N)
    "$ZMAILER" queue count --config "$DIR/zmailer/z.toml" | tail -1
    echo "$1: counted in $((($(date +%s%N) - took) / 1000000)) ms; RSS $(rss_kib) KiB"
    stop_zmailer
    [ "$1" != deferred ] || stop_sink
}

prepare
print_machine
for way in dead deferred; do
    case $WAY in "$way" | both) one_way "$way" ;; esac
done
