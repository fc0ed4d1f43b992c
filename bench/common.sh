# What the benchmarks share: sourced by them, not run. It starts and stops the sink, zmailer and a
# Postfix of its own below $DIR, counts what they use, and ends what it has started, also after an abort.
#
# Who sources it sets DIR, JSON, ROUNDS, SECONDS_EACH, SESSIONS, SIZE and POSTFIX, then calls prepare.
# ZMAILER names a binary that is built already; without it one is built.
PATH=$PATH:/usr/sbin:/usr/lib/postfix/sbin

SOURCE_PORT=2525 SINK_PORT=2600
TO=b@sink.example
SOURCE=(-d)            # options of smtp-source besides sessions, size, count and addresses
SINK_OPTIONS=()
ZMAILER_MORE=""        # lines behind [router] default_route, then whole tables
POSTFIX_MORE=""        # lines of main.cf
ENDED_NS=""            # set by what is measured when its end was before it returned
declare -A CHILDREN=()

die() { echo "$(basename "$0"): $*" >&2; exit 1; }

# ---- processes ----

# The time a process was started: with its number it is that process and no other.
started() { awk '{sub(/.*\) /, ""); print $20}' "/proc/$1/stat" 2>/dev/null || true; }

# Notes a process we started, in memory and for a run that comes after a kill -9 of this one.
adopt() {
    CHILDREN[$1]=yes
    echo "$1 $(started "$1")" >>"$DIR/children"
}

# Waits for it; gives its exit status.
reap() {
    local status=0
    wait "$1" 2>/dev/null || status=$?
    unset "CHILDREN[$1]"
    return $status
}

# Runs a command that an abort ends at once: bash handles signals while it waits, not before.
child() {
    "$@" &
    adopt $!
    reap $!
}

# A process and its direct children.
end_tree() {
    local pid children
    children=$(pgrep -P "$1" || true)
    for pid in $1 $children; do kill "$pid" 2>/dev/null || true; done
}

cleanup() {
    local pid
    set +e
    trap '' INT TERM HUP
    for pid in "${!CHILDREN[@]}"; do end_tree "$pid"; done
    [ -d "$DIR/postfix/etc" ] && postfix -c "$DIR/postfix/etc" stop 2>/dev/null
    for pid in "${!CHILDREN[@]}"; do wait "$pid" 2>/dev/null; done
    [ -d "$DIR" ] && rm -f "$DIR/children"
}

# What a killed run has left: processes it noted that are still the same ones, and its Postfix. The
# first one noted is the run itself: while it lives the directory is not ours.
end_leftovers() {
    local pid time
    if [ -f "$DIR/children" ]; then
        read -r pid time <"$DIR/children" || true
        [ "$(started "$pid")" != "$time" ] || die "a run of process $pid uses $DIR"
    fi
    [ -d "$DIR/postfix/etc" ] && postfix -c "$DIR/postfix/etc" stop 2>/dev/null || true
    [ -f "$DIR/children" ] || return 0
    while read -r pid time; do
        if [ -n "$time" ] && [ "$(started "$pid")" = "$time" ]; then end_tree "$pid"; fi
    done <"$DIR/children"
    sleep 0.5
}

failed() { echo "$(basename "$0"): line $2: $3: exit $1" >&2; }

prepare() {
    command -v smtp-source >/dev/null || die "smtp-source is not installed (Debian: postfix)"
    if [ -z "${ZMAILER:-}" ]; then
        cargo build --release --quiet --bin zmailer --bin sendmail
        ZMAILER=$(pwd)/target/release/zmailer
    fi
    [ -x "$ZMAILER" ] || die "$ZMAILER is not a program"
    end_leftovers
    rm -rf "$DIR"
    mkdir -p "$DIR"
    DIR=$(cd "$DIR" && pwd)
    ZMAILER=$(realpath "$ZMAILER")
    RESULTS=$DIR/results.tsv
    echo "$$ $(started $$)" >"$DIR/children"
    trap cleanup EXIT
    set -E
    trap 'failed "$?" "$LINENO" "$BASH_COMMAND"' ERR
    trap 'trap "" ERR; exit 130' INT
    trap 'trap "" ERR; exit 143' TERM HUP
    for port in $SOURCE_PORT $SINK_PORT; do
        ! listens "$port" || die "something listens on port $port already"
    done
    DEVICE=$(lsblk -no NAME "$(df --output=source "$DIR" | tail -1)" 2>/dev/null | head -1 || true)
}

has_postfix() {
    [ "$POSTFIX" = yes ] || return 1
    if [ "$(id -u)" != 0 ] || ! command -v postfix >/dev/null; then
        echo "SKIPPED: Postfix needs root and its package"
        return 1
    fi
}

# Its type, and for ext4 whether it has a journal: without one nothing shares the sync of a file.
file_system() {
    local type
    type=$(df --output=fstype "$DIR" | tail -1)
    if [ "$type" = ext4 ] && ! compgen -G "/proc/fs/jbd2/$DEVICE-*" >/dev/null; then type="ext4 without a journal"; fi
    echo "$type"
}

print_machine() {
    echo "machine: $(nproc) cores, kernel $(uname -r), $(file_system) on ${DEVICE:-?}," \
        "$(sysctl -n net.ipv4.tcp_congestion_control 2>/dev/null || echo '?'); load $(cut -d' ' -f1 /proc/loadavg)"
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

# A number of the running daemon's status: table, key.
status_number() {
    "$ZMAILER" status --json --config "$DIR/zmailer/z.toml" \
        | tr -d '\n' | sed "s/.*\"$1\"://" | grep -o "\"$2\": *[0-9]*" | head -1 | tr -dc 0-9
}

# A counter of its spool.
counter() { status_number spool "$1"; }

# ---- sink, zmailer, Postfix ----

start_sink() {
    local user=()
    [ "$(id -u)" = 0 ] && user=(-u postfix)
    smtp-sink -c "${user[@]}" "${SINK_OPTIONS[@]}" "127.0.0.1:$SINK_PORT" 1000 >"$DIR/sink.out" 2>/dev/null &
    SINK=$!
    adopt "$SINK"
    sleep 0.3
}

stop_sink() { kill "$SINK"; reap "$SINK" || true; }

sink_count() {
    tail -c 200 "$DIR/sink.out" | tr '\r' '\n' | grep -o 'mesg=[0-9]*' | tail -1 | cut -d= -f2 | grep . || echo 0
}

configure_zmailer() {
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
$ZMAILER_MORE
END
}

start_zmailer() {
    configure_zmailer "$1"
    "$ZMAILER" run --config "$DIR/zmailer/z.toml" >"$DIR/zmailer/out" 2>&1 &
    DAEMON=$!
    adopt "$DAEMON"
    wait_for_port "$SOURCE_PORT"
    wait_for_status
}

# It listens before it can be asked.
wait_for_status() {
    for _ in $(seq 500); do
        "$ZMAILER" status --json --config "$DIR/zmailer/z.toml" >/dev/null 2>&1 && return 0
        sleep 0.01
    done
    die "zmailer does not answer: $(tail -3 "$DIR/zmailer/out")"
}

# Ends the daemon and keeps its directory. SURVIVORS: how many of its own processes had to be ended too.
end_zmailer() {
    local pid children
    SURVIVORS=0
    children=$(pgrep -P "$DAEMON" || true)
    for pid in $children; do adopt "$pid"; done
    kill "$DAEMON"
    reap "$DAEMON" || true
    for pid in $children; do
        end_survivor "$pid"
        unset "CHILDREN[$pid]"
    done
}

end_survivor() {
    local time
    time=$(awk -v pid="$1" '$1 == pid {time = $2} END {print time}' "$DIR/children")
    for _ in $(seq 20); do
        [ "$(started "$1")" = "$time" ] || return 0
        # One that only waits to be reaped has ended.
        case $(awk '{sub(/.*\) /, ""); print $1}' "/proc/$1/stat" 2>/dev/null) in Z | "") return 0 ;; esac
        sleep 0.05
    done
    SURVIVORS=$((SURVIVORS + 1))
    kill "$1" 2>/dev/null || true
}

stop_zmailer() {
    end_zmailer
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
maillog_file = $DIR/postfix/maillog
maillog_file_prefixes = $DIR
$POSTFIX_MORE
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

print_zmailer_settings() {
    configure_zmailer sync
    echo "zmailer, settings:"
    sed 's/^/    /' "$DIR/zmailer/z.toml"
    rm -rf "$DIR/zmailer"
}

print_postfix_settings() {
    postfix_config
    echo "Postfix $(postconf -c "$DIR/postfix/etc" -h mail_version), settings:"
    postconf -c "$DIR/postfix/etc" -n | sed 's/^/    /'
    rm -rf "$DIR/postfix"
}

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

wait_for_port() {
    for _ in $(seq 100); do
        listens "$1" && return 0
        sleep 0.1
    done
    die "nothing listens on port $1"
}

# ---- a run ----

# Sends $2 messages to port $1 and waits until the sink has them.
send_through() {
    local want=$(($(sink_count) + $2))
    child smtp-source "${SOURCE[@]}" -s "$SESSIONS" -l "$SIZE" -m "$2" -f a@source.example -t "$TO" "127.0.0.1:$1"
    for _ in $(seq 3000); do
        [ "$(sink_count)" -ge "$want" ] && break
        sleep 0.02
    done
    ENDED_NS=$(date +%s%N)
    [ "$(sink_count)" -ge "$want" ] || die "$way: only $(sink_count) of $want messages arrived"
}

# Measures the command behind $2, which moves $2 items. One line to the results: way, items,
# milliseconds, daemon ticks, busy ticks, idle ticks, commits, flushes, device flushes, bytes written,
# peak RSS in KiB.
measure() {
    local way=$1 count=$2 t0 t1
    local d0=0 d1=0 b0 b1 i0 i1 c0=0 c1=0 f0=0 f1=0 v0 v1 w0=0 w1=0 rss=0 daemon=yes
    shift 2
    case $way in direct | true) daemon=no ;; esac
    b0=$(busy_ticks) i0=$(idle_ticks) v0=$(device_flushes)
    [ $daemon = no ] || d0=$(ticks_of_tree "$DAEMON")
    if [ "$way" = zmailer ]; then
        c0=$(counter commits) f0=$(counter flushes) w0=$(written_by "$DAEMON")
    fi
    ENDED_NS=""
    t0=$(date +%s%N)
    "$@"
    t1=${ENDED_NS:-$(date +%s%N)}
    b1=$(busy_ticks) i1=$(idle_ticks)
    [ $daemon = no ] || { d1=$(ticks_of_tree "$DAEMON"); rss=$(peak_rss_kib "$DAEMON"); }
    if [ "$way" = zmailer ]; then
        sleep 0.5
        c1=$(counter commits) f1=$(counter flushes) w1=$(written_by "$DAEMON")
    fi
    v1=$(device_flushes)
    printf '%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n' "$way" "$count" $(((t1 - t0) / 1000000)) \
        $((d1 - d0)) $((b1 - b0)) $((i1 - i0)) $((c1 - c0)) $((f1 - f0)) $((v1 - v0)) $((w1 - w0)) "$rss" \
        >>"$RESULTS"
}

# Sets CALIBRATED to the items for about $2 seconds, from a short run of $3.
calibrate() {
    run_way "$1" "$3"
    CALIBRATED=$(awk -v s="$2" -v least="$4" \
        'END {n = $2 * 1000 / $3 * s; printf "%d", n < least ? least : n}' "$RESULTS")
}

# Items a second of the last run.
last_rate() { awk -F'\t' 'END {printf "%.0f", $2 * 1000 / $3}' "$RESULTS"; }

# A run counts only if 250 means what both sides say: with one session there is at least one flush a
# message, and with durability = "none" about none. Others who use the disk can spoil the second: three
# tries.
floor() {
    local sessions=$SESSIONS try
    SESSIONS=1
    for try in 1 2 3; do
        ! try_floor || break
        [ "$try" -lt 3 ] || { echo "VOID: the floor does not hold"; exit 1; }
    done
    SESSIONS=$sessions
    : >"$RESULTS"
}

try_floor() {
    local flushes device ok=0
    start_sink
    start_zmailer sync
    measure zmailer 500 send_through "$SOURCE_PORT" 500
    stop_zmailer
    flushes=$(awk 'END {print $8}' "$RESULTS") device=$(awk 'END {print $9}' "$RESULTS")
    echo "floor: 500 messages in one session: $flushes flushes counted, $device seen by $DEVICE"
    [ "$flushes" -ge 500 ] || ok=1
    start_zmailer none
    measure zmailer 500 send_through "$SOURCE_PORT" 500
    stop_zmailer
    stop_sink
    device=$(awk 'END {print $9}' "$RESULTS")
    echo "floor: the same with durability = \"none\": $device seen by $DEVICE"
    [ "$device" -lt 100 ] || ok=1
    return $ok
}
