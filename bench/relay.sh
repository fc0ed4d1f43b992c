#!/usr/bin/env bash
# Relay throughput, side by side on one machine: Postfix's smtp-source (a) straight into its
# smtp-sink, (b) through zmailer, (c) through Postfix; interleaved, counted at the sink.
#
#   bench/relay.sh [--rounds 5] [--seconds 30] [--sessions 50] [--size 4096] [--no-postfix]
#                  [--json FILE] [--dir DIR]
#
# Needs smtp-source, smtp-sink and (for c, as root) Postfix. Everything else on the machine should
# rest. A run counts only if the validity floor at its start holds: with one session there is at
# least one flush a message, and with durability = "none" about none.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/usr/lib/postfix/sbin

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
        *) sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 64 ;;
    esac
    shift
done

SOURCE_PORT=2525 SINK_PORT=2600
RESULTS=$DIR/results.tsv
CHILDREN=()

die() { echo "relay.sh: $*" >&2; exit 1; }

cleanup() {
    for pid in "${CHILDREN[@]}"; do kill "$pid" 2>/dev/null || true; done
    [ -d "$DIR/postfix/etc" ] && postfix -c "$DIR/postfix/etc" stop 2>/dev/null || true
}
trap cleanup EXIT

prepare() {
    command -v smtp-source >/dev/null || die "smtp-source is not installed (Debian: postfix)"
    cargo build --release --quiet --bin zmailer
    rm -rf "$DIR"
    mkdir -p "$DIR"
    DIR=$(cd "$DIR" && pwd)
    RESULTS=$DIR/results.tsv
    ZMAILER=$(pwd)/target/release/zmailer
    DEVICE=$(lsblk -no NAME "$(df --output=source "$DIR" | tail -1)" 2>/dev/null | head -1 || true)
}

# ---- counters ----

busy_ticks() { awk '/^cpu / {print $2+$3+$4+$7+$8; exit}' /proc/stat; }
idle_ticks() { awk '/^cpu / {print $5+$6; exit}' /proc/stat; }
device_flushes() { awk -v d="$DEVICE" '$3 == d {print $19; found=1} END {if (!found) print 0}' /proc/diskstats; }
ticks_of() { awk '{sub(/.*\) /, ""); print $12+$13+$14+$15}' "/proc/$1/stat" 2>/dev/null || echo 0; }

# CPU of a process and all its children, dead ones included.
ticks_of_tree() {
    local sum child
    sum=$(ticks_of "$1")
    for child in $(pgrep -P "$1" || true); do sum=$((sum + $(ticks_of "$child"))); done
    echo "$sum"
}

written_by() { awk '/^write_bytes/ {print $2}' "/proc/$1/io" 2>/dev/null || echo 0; }
peak_rss_kib() { awk '/^VmHWM/ {print $2}' "/proc/$1/status" 2>/dev/null || echo 0; }

# A counter of the running daemon's spool.
counter() {
    "$ZMAILER" status --json --config "$DIR/zmailer/z.toml" \
        | tr -d '\n' | sed 's/.*"spool"://' | grep -o "\"$1\": *[0-9]*" | tr -dc 0-9
}

# ---- the three ways ----

start_sink() {
    local user=()
    [ "$(id -u)" = 0 ] && user=(-u postfix)
    smtp-sink -c "${user[@]}" "127.0.0.1:$SINK_PORT" 1000 >"$DIR/sink.out" 2>/dev/null &
    SINK=$!
    CHILDREN+=("$SINK")
    sleep 0.3
}

stop_sink() { kill "$SINK"; wait "$SINK" 2>/dev/null || true; }

sink_count() {
    tail -c 200 "$DIR/sink.out" | tr '\r' '\n' | grep -o 'mesg=[0-9]*' | tail -1 | cut -d= -f2 | grep . || echo 0
}

start_zmailer() {
    local home=$DIR/zmailer user=""
    mkdir -p "$home/po" "$home/log"
    if [ "$(id -u)" = 0 ]; then
        user='user = "nobody"'
        chown -R nobody "$home"
    fi
    cat >"$home/z.toml" <<END
[paths]
postoffice = "$home/po"
log_dir = "$home/log"
[daemon]
hostname = "relay.test.example"
$user
[spool]
durability = "$1"
[smtpserver]
listen = ["127.0.0.1:$SOURCE_PORT"]
[router]
default_route = "smtp!127.0.0.1:$SINK_PORT"
END
    "$ZMAILER" run --config "$home/z.toml" >"$home/out" 2>&1 &
    DAEMON=$!
    CHILDREN+=("$DAEMON")
    wait_for_port "$SOURCE_PORT"
}

stop_zmailer() {
    kill "$DAEMON"
    wait "$DAEMON" 2>/dev/null || true
    rm -rf "$DIR/zmailer"
}

postfix_config() {
    local etc=$DIR/postfix/etc
    mkdir -p "$etc" "$DIR/postfix/spool" "$DIR/postfix/data"
    chown postfix "$DIR/postfix/data"
    chmod 755 "$DIR" "$DIR/postfix" "$DIR/postfix/spool"
    cat >"$etc/main.cf" <<END
compatibility_level = 3.6
queue_directory = $DIR/postfix/spool
data_directory = $DIR/postfix/data
myhostname = relay.test.example
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
relayhost = [127.0.0.1]:$SINK_PORT
smtp_host_lookup = native
default_process_limit = 200
smtp_destination_concurrency_limit = 100
initial_destination_concurrency = 50
in_flow_delay = 0
smtpd_client_connection_count_limit = 0
smtputf8_enable = no
maillog_file = /var/log/postfix-bench.log
maillog_file_prefixes = /var
END
    grep -vE '^(smtp +inet|#|$)' /etc/postfix/master.cf | sed -E 's/^(([^ \t]+[ \t]+){4})y/\1n/' \
        >"$etc/master.cf"
    echo "127.0.0.1:$SOURCE_PORT inet n - n - - smtpd" >>"$etc/master.cf"
    postfix -c "$etc" check 2>/dev/null || true
}

start_postfix() {
    postfix_config
    postfix -c "$DIR/postfix/etc" start 2>/dev/null
    wait_for_port "$SOURCE_PORT"
    DAEMON=$(tr -d ' ' <"$DIR/postfix/spool/pid/master.pid")
}

stop_postfix() {
    postfix -c "$DIR/postfix/etc" stop 2>/dev/null || true
    rm -rf "$DIR/postfix"
}

wait_for_port() {
    for _ in $(seq 100); do
        (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return 0
        sleep 0.1
    done
    die "nothing listens on port $1"
}

# Sends $3 messages to port $2 and waits until the sink has them. One line to the results:
# way, messages, seconds, daemon ticks, busy ticks, idle ticks, commits, flushes, device flushes,
# bytes written, peak RSS in KiB.
measure() {
    local way=$1 port=$2 count=$3 want t0 t1
    local d0=0 d1=0 b0 b1 i0 i1 c0=0 c1=0 f0=0 f1=0 v0 v1 w0=0 w1=0 rss=0
    want=$(($(sink_count) + count))
    b0=$(busy_ticks) i0=$(idle_ticks) v0=$(device_flushes)
    [ "$way" = direct ] || d0=$(ticks_of_tree "$DAEMON")
    if [ "$way" = zmailer ]; then
        c0=$(counter commits) f0=$(counter flushes) w0=$(written_by "$DAEMON")
    fi
    t0=$(date +%s%N)
    smtp-source -d -s "$SESSIONS" -l "$SIZE" -m "$count" -f a@source.example -t b@sink.example "127.0.0.1:$port"
    for _ in $(seq 3000); do
        [ "$(sink_count)" -ge "$want" ] && break
        sleep 0.02
    done
    t1=$(date +%s%N)
    [ "$(sink_count)" -ge "$want" ] || die "$way: only $(sink_count) of $want messages arrived"
    b1=$(busy_ticks) i1=$(idle_ticks)
    [ "$way" = direct ] || { d1=$(ticks_of_tree "$DAEMON"); rss=$(peak_rss_kib "$DAEMON"); }
    if [ "$way" = zmailer ]; then
        sleep 0.5
        c1=$(counter commits) f1=$(counter flushes) w1=$(written_by "$DAEMON")
    fi
    v1=$(device_flushes)
    printf '%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n' "$way" "$count" $(((t1 - t0) / 1000000)) \
        $((d1 - d0)) $((b1 - b0)) $((i1 - i0)) $((c1 - c0)) $((f1 - f0)) $((v1 - v0)) $((w1 - w0)) "$rss" \
        >>"$RESULTS"
}

run_way() {
    local way=$1 count=$2 port=$SOURCE_PORT
    start_sink
    case $way in
        direct) port=$SINK_PORT ;;
        zmailer) start_zmailer sync ;;
        postfix) start_postfix ;;
    esac
    measure "$way" "$port" "$count"
    case $way in
        zmailer) stop_zmailer ;;
        postfix) stop_postfix ;;
    esac
    stop_sink
}

# ---- validity floor ----

floor() {
    local sessions=$SESSIONS flushes device ok=yes
    SESSIONS=1
    start_sink
    start_zmailer sync
    measure zmailer "$SOURCE_PORT" 500
    stop_zmailer
    flushes=$(awk 'END {print $8}' "$RESULTS") device=$(awk 'END {print $9}' "$RESULTS")
    echo "floor: 500 messages in one session: $flushes flushes counted, $device seen by $DEVICE"
    [ "$flushes" -ge 500 ] || ok=no
    start_zmailer none
    measure zmailer "$SOURCE_PORT" 500
    stop_zmailer
    stop_sink
    device=$(awk 'END {print $9}' "$RESULTS")
    echo "floor: the same with durability = \"none\": $device seen by $DEVICE"
    [ "$device" -lt 100 ] || ok=no
    SESSIONS=$sessions
    : >"$RESULTS"
    [ $ok = yes ] || { echo "VOID: the floor does not hold"; exit 1; }
}

# ---- output ----

# Messages for about $2 seconds, from a short run.
calibrate() {
    run_way "$1" "$3"
    awk -v s="$2" 'END {n = $2 * 1000 / $3 * s; printf "%d\n", n < 500 ? 500 : n}' "$RESULTS"
}

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
    if [ $POSTFIX = yes ]; then
        if [ "$(id -u)" = 0 ] && command -v postfix >/dev/null; then
            ways+=(postfix)
        else
            echo "SKIPPED: Postfix needs root and its package"
        fi
    fi
    echo "machine: $(nproc) cores, kernel $(uname -r), $(df --output=fstype "$DIR" | tail -1) on ${DEVICE:-?}," \
        "$(sysctl -n net.ipv4.tcp_congestion_control 2>/dev/null || echo '?'); load $(cut -d' ' -f1 /proc/loadavg)"
    floor
    count[direct]=$(calibrate direct "$SECONDS_EACH" 20000)
    count[zmailer]=$(calibrate zmailer "$SECONDS_EACH" 20000)
    [ ${#ways[@]} -lt 3 ] || count[postfix]=$(calibrate postfix "$SECONDS_EACH" 2000)
    : >"$RESULTS"
    for round in $(seq "$ROUNDS"); do
        for way in "${ways[@]}"; do
            run_way "$way" "${count[$way]}"
            echo "round $round $way: $(awk -F'\t' 'END {printf "%.0f messages/s", $2 * 1000 / $3}' "$RESULTS")"
        done
    done
    if [ ${#ways[@]} -eq 3 ]; then
        postfix_config
        echo "Postfix $(postconf -c "$DIR/postfix/etc" -h mail_version), settings:"
        postconf -c "$DIR/postfix/etc" -n | sed 's/^/    /'
        rm -rf "$DIR/postfix"
    fi
    echo "smtp-source -d -s $SESSIONS -l $SIZE, $ROUNDS rounds, medians; written: bytes a byte of content; more: machine CPU above direct"
    report
}

main
