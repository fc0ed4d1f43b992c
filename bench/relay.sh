#!/usr/bin/env bash
# Relay throughput, side by side on one machine: Postfix's smtp-source (a) straight into its
# smtp-sink, (b) through zmailer, (c) through Postfix; interleaved, counted at the sink.
#
#   bench/relay.sh [--rounds 5] [--seconds 30] [--sessions 50] [--size 4096] [--no-postfix]
#                  [--json FILE] [--dir DIR]
#
# Needs smtp-source, smtp-sink and (for c, as root) Postfix. Everything else on the machine should
# rest. A run counts only if the validity floor at its start holds: with one session there is at
# least one flush a message, and with durability = "none" about none. ZMAILER in the environment names
# a binary that is built already.
set -euo pipefail
cd "$(dirname "$0")/.."
. bench/common.sh

ROUNDS=5 SECONDS_EACH=30 SESSIONS=50 SIZE=4096 POSTFIX=yes JSON="" DIR=target/bench/relay
while [ $# -gt 0 ]; do
    case $1 in
        --rounds) ROUNDS=$2; shift ;;
        --seconds) SECONDS_EACH=$2; shift ;;
        --sessions) SESSIONS=$2; shift ;;
        --size) SIZE=$2; shift ;;
        --json) JSON=$2; shift ;;
        --dir) DIR=$2; shift ;;
        --no-postfix) POSTFIX=no ;;
        *) sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 64 ;;
    esac
    shift
done

run_way() {
    local way=$1 count=$2 port=$SOURCE_PORT
    start_sink
    case $way in
        direct) port=$SINK_PORT ;;
        zmailer) start_zmailer sync ;;
        postfix) start_postfix ;;
    esac
    measure "$way" "$count" send_through "$port" "$count"
    case $way in
        zmailer) stop_zmailer ;;
        postfix) stop_postfix ;;
    esac
    stop_sink
}

# ---- output ----

report() {
    awk -F'\t' -v size="$SIZE" -v hz="$(getconf CLK_TCK)" -v json="$JSON" '
    function median(list,   parts, n, i, j, t) {
        n = split(list, parts, " ")
        for (i = 2; i <= n; i++) for (j = i; j > 1 && parts[j-1]+0 > parts[j]+0; j--) {
            t = parts[j]; parts[j] = parts[j-1]; parts[j-1] = t
        }
        low = parts[1]; high = parts[n]
        return n % 2 ? parts[(n+1)/2] : (parts[n/2] + parts[n/2+1]) / 2
    }
    function add(way, what, value) { all[way, what] = all[way, what] " " value }
    {
        us = 1000000 / hz / $2
        add($1, "rate", $2 * 1000 / $3); add($1, "cpu", $4 * us); add($1, "machine", $5 * us)
        add($1, "idle", 100 * $6 / ($5 + $6)); add($1, "commits", $7 / $2)
        add($1, "flushes", $8 / $2); add($1, "device", $9 / $2)
        add($1, "written", $10 / $2 / size); add($1, "rss", $11 / 1024)
    }
    END {
        direct = median(all["direct", "rate"]); base = median(all["direct", "machine"])
        printf "%-8s %9s %19s %6s %8s %8s %6s %8s %8s %8s %8s %7s\n", "way", "msg/s", "spread", \
            "ratio", "cpu us", "more us", "idle%", "commits", "flushes", "device", "written", "rss MiB"
        n = split("direct zmailer postfix", ways, " ")
        for (w = 1; w <= n; w++) {
            way = ways[w]
            if (!((way, "rate") in all)) continue
            rate = median(all[way, "rate"]); lo = low; hi = high
            printf "%-8s %9.0f %9.0f-%9.0f %6.2f %8.1f %8.1f %6.1f %8.3f %8.3f %8.3f %8.2f %7.0f\n", way, rate, lo, hi, \
                rate / direct, median(all[way, "cpu"]), median(all[way, "machine"]) - base, \
                median(all[way, "idle"]), median(all[way, "commits"]), median(all[way, "flushes"]), \
                median(all[way, "device"]), median(all[way, "written"]), median(all[way, "rss"])
            if (json != "") printf "%s\"%s\": {\"rate\": %.0f, \"low\": %.0f, \"high\": %.0f, \"ratio\": %.3f, \"cpu_us\": %.1f, \"flushes\": %.4f, \"written\": %.3f, \"rss_mib\": %.0f}", \
                (w > 1 ? ", " : "{"), way, rate, lo, hi, rate / direct, median(all[way, "cpu"]), \
                median(all[way, "flushes"]), median(all[way, "written"]), median(all[way, "rss"]) >json
        }
        if (json != "") print "}" >json
    }' "$RESULTS"
}

main() {
    prepare
    local ways=(direct zmailer) way round
    declare -A count
    if has_postfix; then ways+=(postfix); fi
    print_machine
    floor
    for way in "${ways[@]}"; do
        calibrate "$way" "$SECONDS_EACH" $([ "$way" = postfix ] && echo 2000 || echo 20000) 500
        count[$way]=$CALIBRATED
    done
    : >"$RESULTS"
    for round in $(seq "$ROUNDS"); do
        for way in "${ways[@]}"; do
            run_way "$way" "${count[$way]}"
            echo "round $round $way: $(last_rate) messages/s"
        done
    done
    [ ${#ways[@]} -lt 3 ] || print_postfix_settings
    echo "smtp-source -d -s $SESSIONS -l $SIZE, $ROUNDS rounds, medians; written: bytes a byte of content; more: machine CPU above direct"
    report
}

main
