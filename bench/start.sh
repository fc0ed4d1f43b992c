#!/usr/bin/env bash
# Start and stop with a long queue: time from the start of the process to the greeting, to the first delivery,
# until all of the queue is in memory; time of a stop. After a stop, after a kill, and with a damaged checkpoint.
#
#   bench/start.sh [--count 1000000] [--size 1024] [--dir DIR]
#
# Needs loadgen, which is built, and smtp-sink. ZMAILER in the environment names a binary that is built already.
set -euo pipefail
cd "$(dirname "$0")/.."
. bench/common.sh

COUNT=1000000 SIZE=1024 SESSIONS=50 POSTFIX=no JSON="" DIR=target/bench/start
while [ $# -gt 0 ]; do
    case $1 in
        --count) COUNT=$2; shift ;;
        --size) SIZE=$2; shift ;;
        --dir) DIR=$2; shift ;;
        *) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 64 ;;
    esac
    shift
done
# The next hop is tried soon after each start; while it is down that costs one connection each time.
ZMAILER_MORE='[[scheduler.rule]]
match = "*"
retry = ["1s"]'

now_ms() { echo $(($(date +%s%N) / 1000000)); }

# Starts the daemon; says how long it takes to the greeting, to the first delivery and until all is in.
timed_start() {
    local begun greeted delivered=- loaded
    begun=$(now_ms)
    "$ZMAILER" run --config "$DIR/zmailer/z.toml" >"$DIR/zmailer/out" 2>&1 &
    DAEMON=$!
    adopt "$DAEMON"
    until greeted "$SOURCE_PORT"; do sleep 0.005; done
    greeted=$(($(now_ms) - begun))
    if [ "$2" = sink ]; then
        until [ "$(sink_count)" -gt 0 ]; do sleep 0.01; done
        delivered=$(($(now_ms) - begun))
    fi
    wait_for_status
    until [ "$(counter loading_messages)" = 0 ]; do sleep 0.02; done
    loaded=$(($(now_ms) - begun))
    echo "$1: greeting after $greeted ms, first delivery after $delivered ms, all in after $loaded ms;" \
        "$(status_number queue messages) queued; RSS $(awk '/^VmRSS/ {print $2}' "/proc/$DAEMON/status") KiB"
}

greeted() {
    local line=""
    { exec 9<>"/dev/tcp/127.0.0.1/$1"; } 2>/dev/null || return 1
    read -r -t 5 line <&9 || true
    exec 9<&- 9>&-
    [ "${line:0:3}" = 220 ]
}

timed_stop() {
    local begun
    begun=$(now_ms)
    kill "-$1" "$DAEMON"
    reap "$DAEMON" || true
    echo "stop by $1: $(($(now_ms) - begun)) ms"
}

prepare
[ -x target/release/loadgen ] || cargo build --release --quiet -p zmailer-loadgen
start_zmailer sync
fill_begun=$(now_ms)
child target/release/loadgen spool-fill --to "127.0.0.1:$SOURCE_PORT" --messages "$COUNT" --size "$SIZE" --connections 200 >"$DIR/fill"
echo "$COUNT messages of $SIZE bytes accepted in $(($(now_ms) - fill_begun)) ms"
sleep 3
timed_stop TERM
timed_start "after a stop" none
timed_stop KILL
start_sink
timed_start "after a kill, the next hop is there" sink
timed_stop TERM
stop_sink
for file in "$DIR"/zmailer/po/spool/*/checkpoint.*; do
    printf x | dd of="$file" bs=1 seek=5000 conv=notrunc status=none
done
timed_start "with damaged checkpoints" none
timed_stop TERM
