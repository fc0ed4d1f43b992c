#!/usr/bin/env bash
# A large alias file compiled anew while the relay is busy: time of the whole command (read, parse, sort, compile,
# write, sync, rename), what the relay moves meanwhile and without, and the look-up meanwhile.
#
#   bench/newaliases.sh [--entries 1000000] [--rounds 5] [--sessions 50] [--size 4096] [--dir DIR]
#
# Needs smtp-source and smtp-sink (Debian: postfix). ZMAILER in the environment names a binary that is built
# already; RELATION names the benchmark `relation`, without which look-ups are not timed.
set -euo pipefail
cd "$(dirname "$0")/.."
. bench/common.sh

ENTRIES=1000000 ROUNDS=5 SESSIONS=50 SIZE=4096 POSTFIX=no JSON="" DIR=target/bench/newaliases
while [ $# -gt 0 ]; do
    case $1 in
        --entries) ENTRIES=$2; shift ;;
        --rounds) ROUNDS=$2; shift ;;
        --sessions) SESSIONS=$2; shift ;;
        --size) SIZE=$2; shift ;;
        --dir) DIR=$2; shift ;;
        *) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 64 ;;
    esac
    shift
done

now_ms() { echo $(($(date +%s%N) / 1000000)); }

write_aliases() {
    awk -v n="$ENTRIES" -v round="$1" 'BEGIN {
        for (i = 0; i < n; i++)
            printf "user%d.%d: mailbox%d@host%d.example.org\n", (i * 40503) % 65536, i, i, i % 1000
        printf "round: round%d@sink.example\n", round
    }' >"$DIR/zmailer/aliases"
}

newaliases() { "$ZMAILER" newaliases -s --config "$DIR/zmailer/z.toml"; }

# Mail for the relay until $DIR/stop is there.
load() {
    while [ ! -e "$DIR/stop" ]; do
        smtp-source "${SOURCE[@]}" -s "$SESSIONS" -l "$SIZE" -m 2000 -f a@source.example -t "$TO" "127.0.0.1:$SOURCE_PORT" || true
    done
}

# Messages a second at the sink for $1 milliseconds.
rate_for() {
    local before begun
    before=$(sink_count) begun=$(now_ms)
    sleep "$(awk -v ms="$1" 'BEGIN {print ms / 1000}')"
    echo $((($(sink_count) - before) * 1000 / ($(now_ms) - begun)))
}

prepare
print_machine
configure_zmailer sync
write_aliases 0
newaliases
for round in $(seq "$ROUNDS"); do
    begun=$(now_ms)
    newaliases
    echo "round $round, idle relay: $(($(now_ms) - begun)) ms"
done
start_sink
start_zmailer sync
load &
LOAD=$!
adopt $LOAD
sleep 2
echo "relay alone: $(rate_for 3000) messages/s"
for round in $(seq "$ROUNDS"); do
    write_aliases "$round"
    before=$(sink_count) begun=$(now_ms)
    newaliases
    took=$(($(now_ms) - begun))
    echo "round $round, busy relay: $took ms, $((($(sink_count) - before) * 1000 / took)) messages/s meanwhile"
done
if [ -n "${RELATION:-}" ]; then
    (while [ ! -e "$DIR/stop" ]; do newaliases; done) &
    AGAIN=$!
    adopt $AGAIN
    "$RELATION" --bench look-up | grep -E 'time:' -B1 | grep -v '^--' || true
fi
touch "$DIR/stop"
reap $LOAD || true
[ -z "${AGAIN:-}" ] || reap "$AGAIN" || true
"$ZMAILER" route --config "$DIR/zmailer/z.toml" --tsv round@relay.test.example
stop_zmailer
stop_sink
