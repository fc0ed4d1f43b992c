#!/usr/bin/env bash
# Six things a mail host does besides relaying small messages over open connections, side by side on
# one machine: zmailer, Postfix and, where it makes sense, without either; interleaved.
#
#   bench/breadth.sh [--only CASE[,CASE]] [--rounds 5] [--seconds 30] [--sessions 50] [--files 50000]
#                    [--no-postfix] [--zmailer PATH] [--json FILE] [--dir DIR]
#
#   large           messages of 100 KiB over open connections
#   new-connection  one connection a message, 4 KiB
#   maildir         4 KiB into the Maildirs of 100 users, counted there
#   list            4 KiB to 100 recipients at one next hop; recipients a second
#   submit          8 processes that call sendmail, 4 KiB, until the last exit 0
#   pickup          50,000 files that waited for the daemon, next hop up and down
#
# Needs smtp-source, smtp-sink and (to compare, as root) Postfix. Everything else should rest. A run is
# void if the floor at its start does not hold, if commits do not wait for the disk, or if what was
# delivered is not exactly what was accepted.
set -euo pipefail
cd "$(dirname "$0")/.."
. bench/common.sh

CASES="large new-connection maildir list submit pickup"
ONLY=$CASES ROUNDS=5 SECONDS_EACH=30 SESSIONS=50 SIZE=4096 FILES=50000 POSTFIX=yes JSON="" DIR=target/bench/breadth
while [ $# -gt 0 ]; do
    case $1 in
        --only) ONLY=${2//,/ }; shift ;;
        --rounds) ROUNDS=$2; shift ;;
        --seconds) SECONDS_EACH=$2; shift ;;
        --sessions) SESSIONS=$2; shift ;;
        --files) FILES=$2; shift ;;
        --zmailer) ZMAILER=$2; shift ;;
        --json) JSON=$2; shift ;;
        --dir) DIR=$2; shift ;;
        --no-postfix) POSTFIX=no ;;
        *) sed -n '2,18s/^# \{0,1\}//p' "$0" >&2; exit 64 ;;
    esac
    shift
done
for CASE in $ONLY; do
    [[ " $CASES " = *" $CASE "* ]] || die "there is no case $CASE; there are: $CASES"
done

USERS=100 LIST=100 SUBMITTERS=8

# Marks: at least so many times Postfix; so much of direct; so many a second.
declare -A MARK=(
    [large/postfix]=4 [large/direct]=0.35
    [new-connection/postfix]=8
    [maildir/postfix]=5
    [list/postfix]=10
    [submit/postfix]=5
    [pickup-down/rate]=20000 [pickup-up/rate]=20000
)

# ---- what makes a run void ----

void() { echo "VOID: $CASE, $*" | tee -a "$DIR/void" >&2; }

# Keeps what a daemon complained about; it does not void a run.
complain() { echo "COMPLAINT: $CASE, $*" | tee -a "$DIR/complaints" >&2; }

exactly() {
    [ "$2" = "$3" ] || void "$way: $1 is $2, not $3"
}

# Calls a command until it prints $1, while what it prints changes once a minute at least.
until_prints() {
    local want=$1 now last="" patience=0
    shift
    while [ $patience -lt 300 ]; do
        now=$("$@")
        [ "$now" != "$want" ] || return 0
        if [ "$now" = "$last" ]; then patience=$((patience + 1)); else patience=0; fi
        last=$now
        sleep 0.2
    done
    return 1
}

files_in() { find "$@" -type f 2>/dev/null | wc -l; }

postfix_queue() { (cd "$DIR/postfix/spool" && files_in maildrop incoming active deferred); }

postfix_sent() { grep -c 'status=sent' "$DIR/postfix/maillog" || true; }

# The daemon has accepted $1 messages and delivered $2 recipients, no more, no less, and rests; every
# commit has waited for the disk.
check_zmailer() {
    local key log commits flushes device
    until_prints 0 status_number queue messages || void "$way: the queue does not empty"
    exactly accepted "$(status_number mail accepted)" "$1"
    exactly delivered "$(status_number mail delivered)" "$2"
    for key in deferred failed; do exactly "$key" "$(status_number mail "$key")" 0; done
    commits=$(awk 'END {print $7}' "$RESULTS") flushes=$(awk 'END {print $8}' "$RESULTS")
    device=$(awk 'END {print $9}' "$RESULTS")
    check_flushes "$commits" "$flushes" "$device"
    sleep 0.3
    log=$(cat "$DIR"/zmailer/log/* | grep -c 'event=delivered' || true)
    exactly "deliveries in the mail log" "$log" "$2"
    end_zmailer
    check_rest
    rm -rf "$DIR/zmailer"
}

check_flushes() {
    [ "$1" -gt 0 ] && [ "$2" -ge "$1" ] || void "$way: $1 commits with $2 flushes"
    # Tenths, for a flush that the device had still to count when we looked.
    [ $((10 * $3)) -ge $((9 * $2)) ] || void "$way: $2 flushes, of which the device saw $3"
}

# What a daemon that has ended leaves behind: no file of a message, no complaint.
check_rest() {
    local name
    [ "$SURVIVORS" = 0 ] || complain "$way: $SURVIVORS process of the daemon did not end with it"
    for name in public router postman input deferred freezer; do
        exactly "files in $name/" "$(files_in "$DIR/zmailer/po/$name")" 0
    done
    # What the spool stands on is the machine's affair.
    if grep -E ' (WARN|ERROR) |panicked' "$DIR/zmailer/out" | grep -v 'the spool is on' >"$DIR/found"; then
        complain "$way: $(wc -l <"$DIR/found") lines on standard error, such as: $(head -1 "$DIR/found")"
        cp "$DIR/zmailer/out" "$DIR/$CASE.$way.stderr"
    fi
}

check_postfix() {
    until_prints 0 postfix_queue || void "$way: the queue does not empty"
    until_prints "$1" postfix_sent || true
    exactly "deliveries in the mail log" "$(postfix_sent)" "$1"
    exactly "failures in the mail log" "$(grep -cE 'status=(deferred|bounced)' "$DIR/postfix/maillog" || true)" 0
    if grep -E 'warning:|error:|fatal:|panic:' "$DIR/postfix/maillog" | grep -v dict_nis_init >"$DIR/found"; then
        complain "$way: $(wc -l <"$DIR/found") lines in its log, such as: $(head -1 "$DIR/found")"
    fi
    stop_postfix
}

# ---- over SMTP to the sink: large, new-connection, list ----

run_smtp() {
    local way=$1 messages=$2 recipients=$3 port=$SOURCE_PORT
    start_sink
    case $way in
        direct) port=$SINK_PORT ;;
        zmailer) start_zmailer sync ;;
        postfix) start_postfix ;;
    esac
    sync
    measure "$way" $((messages * recipients)) send_and_settle "$port" "$messages"
    case $way in
        zmailer) check_zmailer "$messages" $((messages * recipients)) ;;
        postfix) check_postfix $((messages * recipients)) ;;
    esac
    exactly "the sink's count" "$(sink_count)" "$messages"
    stop_sink
}

# The end is when the sink's count changed last, as long as it reached the number of messages.
send_and_settle() {
    local count last=-1 patience=0
    child smtp-source "${SOURCE[@]}" -s "$SESSIONS" -l "$SIZE" -m "$2" -f a@source.example -t "$TO" \
        "127.0.0.1:$1" || void "$way: smtp-source failed"
    while [ $patience -lt 3000 ]; do
        count=$(sink_count)
        if [ "$count" != "$last" ]; then ENDED_NS=$(date +%s%N) patience=0; fi
        [ "$count" -lt "$2" ] || return 0
        last=$count
        patience=$((patience + 1))
        sleep 0.02
    done
    void "$way: only $(sink_count) of $2 messages arrived"
}

run_large() { run_smtp "$1" "$2" 1; }
run_new_connection() { run_smtp "$1" "$2" 1; }
run_list() { run_smtp "$1" $(($2 / LIST)) "$LIST"; }

# The sink counts transactions. That each has all recipients is seen in a run whose sink keeps the
# commands: as many MAIL as messages, and as many RCPT as recipients, each name as often as the others.
prove_list() {
    local way messages=30 mails names
    local -a kept
    for way in "$@"; do
        rm -rf "$DIR/dump"
        mkdir "$DIR/dump"
        [ "$(id -u)" != 0 ] || chown postfix "$DIR/dump"
        SINK_OPTIONS=(-D "$DIR/dump/all")
        run_smtp "$way" "$messages" "$LIST"
        SINK_OPTIONS=()
        mails=$(grep -c '^X-Mail-Args:' "$DIR/dump/all" || true)
        names=$(grep '^X-Rcpt-Args:' "$DIR/dump/all" | sort | uniq -c | awk -v n="$messages" '$1 == n' | wc -l)
        exactly "transactions at the sink" "$mails" "$messages"
        exactly "recipients whom the sink has seen in each message" "$names" "$LIST"
        echo "list, $way: $messages messages in $mails transactions, $names recipients in each"
    done
    rm -rf "$DIR/dump"
}

# ---- maildir ----

run_maildir() {
    local way=$1 messages=$(($2 / USERS * USERS)) user
    for user in $(seq 0 $((USERS - 1))); do mkdir -p "$DIR/mail/u$user"/{tmp,new,cur}; done
    [ "$(id -u)" != 0 ] || chown -R nobody:nogroup "$DIR/mail"
    case $way in
        zmailer) start_zmailer sync ;;
        postfix)
            postfix_config
            for user in $(seq 0 $((USERS - 1))); do echo "u$user@home.example u$user/"; done \
                >"$DIR/postfix/etc/mailboxes"
            start_postfix
            ;;
    esac
    sync
    measure "$way" "$messages" send_to_users $((messages / USERS))
    case $way in
        zmailer) check_zmailer "$messages" "$messages" ;;
        postfix) check_postfix "$messages" ;;
    esac
    exactly "messages in new/" "$(delivered_to_users)" "$messages"
    exactly "files in tmp/" "$(files_in "$DIR"/mail/*/tmp)" 0
    # Removed when the case is over: ext4 without a journal makes files slowly where many have just gone.
    mv "$DIR/mail" "$(mktemp -d "$DIR/read.XXXXXX")"
}

delivered_to_users() { files_in "$DIR"/mail/*/new; }

# One smtp-source for each user, as many at a time as there are sessions. The end is the change time of
# the file that was the last to get its name; looking for it more often would cost the daemon time.
send_to_users() {
    local last
    # shellcheck disable=SC2016
    child xargs -a <(seq 0 $((USERS - 1))) -P "$SESSIONS" -I '{}' smtp-source -d -s 1 -l "$SIZE" -m "$1" \
        -f a@source.example -t 'u{}@home.example' "127.0.0.1:$SOURCE_PORT" || void "$way: smtp-source failed"
    until_prints $(($1 * USERS)) delivered_to_users || void "$way: only $(delivered_to_users) arrived"
    last=$(find "$DIR"/mail/*/new -type f -printf '%C@\n' | sort -n | tail -1)
    ENDED_NS=${last%.*}$(echo "${last#*.}000000000" | cut -c1-9)
}

# ---- submit ----

run_submit() {
    local way=$1 messages=$(($2 / SUBMITTERS * SUBMITTERS)) command
    start_sink
    case $way in
        true) command=(/bin/true) ;;
        zmailer)
            start_zmailer sync
            command=("$DIR/sendmail" -C "$DIR/zmailer/z.toml")
            ;;
        postfix)
            start_postfix
            command=(/usr/sbin/sendmail -C "$DIR/postfix/etc")
            ;;
    esac
    sync
    measure "$way" "$messages" submit_in_parallel $((messages / SUBMITTERS)) "${command[@]}" \
        -i -f a@source.example b@sink.example
    [ "$way" = true ] || until_prints "$messages" sink_count || void "$way: only $(sink_count) of $messages arrived"
    case $way in
        zmailer) check_zmailer "$messages" "$messages" ;;
        postfix) check_postfix "$messages" ;;
    esac
    [ "$way" = true ] || exactly "the sink's count" "$(sink_count)" "$messages"
    stop_sink
}

# Each submitter is one small shell that starts a program and waits for it, $1 times.
submit_in_parallel() {
    local times=$1 number pids=()
    shift
    for number in $(seq "$SUBMITTERS"); do
        # shellcheck disable=SC2016
        sh -c 'message=$1 times=$2; shift 2
            while [ $times -gt 0 ]; do "$@" <"$message" || exit 1; times=$((times - 1)); done' \
            sh "$DIR/message" "$times" "$@" 2>"$DIR/submitter.$number" &
        pids+=($!)
        adopt $!
    done
    for number in "${pids[@]}"; do reap "$number" || void "$way: a submission failed: $(cat "$DIR"/submitter.*)"; done
    ENDED_NS=$(date +%s%N)
}

make_message() {
    printf 'From: Ann <a@source.example>\nTo: Bob <b@sink.example>\nSubject: benchmark\n\n'
    awk -v bytes="$SIZE" 'BEGIN {
        line = sprintf("%63s", ""); gsub(/ /, "x", line)
        for (; bytes > 0; bytes -= 64) print line
    }'
}

# ---- pickup ----

# The daemon is new, so its counters are those of the run. Imported is what the spool has accepted; the
# files are removed after that, in batches, which has a line of its own.
run_pickup() {
    local way=$1 files=$2 started listening imported removed v0 b0 i0
    [ "$way" = down ] || start_sink
    # Nobody listens at port 9; an attempt that failed is not made again in this run.
    ZMAILER_MORE=$([ "$way" = up ] || printf '%s\n' 'routes = { "sink.example" = "smtp!127.0.0.1:9" }' \
        '[[scheduler.rule]]' 'match = "*"' 'retry = ["1h"]')
    start_zmailer sync
    end_zmailer
    fill_router "$files"
    sync
    v0=$(device_flushes) b0=$(busy_ticks) i0=$(idle_ticks)
    started=$(date +%s%N)
    "$ZMAILER" run --config "$DIR/zmailer/z.toml" >"$DIR/zmailer/out" 2>&1 &
    DAEMON=$!
    adopt "$DAEMON"
    until listens "$SOURCE_PORT"; do sleep 0.002; done
    listening=$(date +%s%N)
    wait_for_status
    poll_until accepted "$files" || void "$way: only $(status_number mail accepted) of $files imported"
    imported=$(date +%s%N)
    pickup_line "$imported" >>"$RESULTS"
    until_prints 0 files_in "$DIR/zmailer/po/router" || void "$way: files are left in router/"
    removed=$(date +%s%N)
    pickup_line "$removed" >>"${RESULTS%.tsv}-removed.tsv"
    echo "    listening $(((listening - started) / 1000000)) ms after the start"
    check_pickup "$files"
    ZMAILER_MORE=""
    [ "$way" = down ] || stop_sink
}

# A line of results as measure writes it, for what has ended at $1.
pickup_line() {
    printf '%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n' zmailer "$files" $((($1 - listening) / 1000000)) \
        "$(ticks_of_tree "$DAEMON")" $(($(busy_ticks) - b0)) $(($(idle_ticks) - i0)) "$(counter commits)" \
        "$(counter flushes)" $(($(device_flushes) - v0)) "$(written_by "$DAEMON")" "$(peak_rss_kib "$DAEMON")"
}

poll_until() {
    local tries=0
    until [ "$(status_number mail "$1" || true)" = "$2" ]; do
        tries=$((tries + 1))
        [ $tries -lt 6000 ] || return 1
        sleep 0.01
    done
}

check_pickup() {
    if [ "$way" = up ]; then
        until_prints "$1" sink_count || void "$way: only $(sink_count) of $1 arrived"
        check_zmailer "$1" "$1"
        exactly "the sink's count" "$(sink_count)" "$1"
        return 0
    fi
    exactly "messages in the queue" "$(status_number queue messages)" "$1"
    exactly accepted "$(status_number mail accepted)" "$1"
    exactly delivered "$(status_number mail delivered)" 0
    check_flushes "$(counter commits)" "$(counter flushes)" "$(awk 'END {print $9}' "$RESULTS")"
    end_zmailer
    check_rest
    rm -rf "$DIR/zmailer"
}

# Files as sendmail makes them: in public/, named by inode in router/.
fill_router() {
    perl -e '
        my ($postoffice, $count, $message) = @ARGV;
        open(my $in, "<", $message) or die "$message: $!"; local $/; my $text = <$in>;
        umask 0;
        for my $number (1 .. $count) {
            my $path = "$postoffice/public/$number";
            sysopen(my $out, $path, 0301, 0640) or die "$path: $!";
            print $out "from <a\@source.example>\nto <u$number\@sink.example>\nenv-end\n", $text;
            my $inode = (stat $out)[1];
            close($out) or die "$path: $!";
            rename($path, "$postoffice/router/$inode") or die "$path: $!";
        }' "$DIR/zmailer/po" "$1" "$DIR/message"
}

# ---- cases ----

# Sets what the case needs: the ways and the items of the first short run of each.
set_up() {
    SIZE=4096 SOURCE=(-d) TO=b@sink.example ZMAILER_MORE="" POSTFIX_MORE=""
    WAYS="direct zmailer postfix"
    declare -gA SHORT=()
    case $1 in
        large) SIZE=102400 SHORT=([direct]=2000 [zmailer]=2000 [postfix]=400) ;;
        new-connection) SOURCE=() SHORT=([direct]=4000 [zmailer]=4000 [postfix]=1000) ;;
        maildir)
            WAYS="zmailer postfix" SHORT=([zmailer]=2000 [postfix]=1000)
            ZMAILER_MORE=$(printf '%s\n' 'local_domains = ["home.example"]' '[transport.mailbox]' \
                "path = \"$DIR/mail/{user}\"")
            POSTFIX_MORE=$(printf '%s\n' 'virtual_mailbox_domains = home.example' \
                "virtual_mailbox_base = $DIR/mail" "virtual_mailbox_maps = texthash:$DIR/postfix/etc/mailboxes" \
                "virtual_uid_maps = static:$(id -u nobody)" "virtual_gid_maps = static:$(id -g nobody)")
            ;;
        list)
            SOURCE=(-d -r "$LIST") SHORT=([direct]=20000 [zmailer]=20000 [postfix]=10000)
            # Otherwise it would split at 50, and again when the queue is long.
            POSTFIX_MORE=$(printf '%s\n' "smtp_destination_recipient_limit = $LIST" \
                'qmgr_message_recipient_limit = 2000000')
            ;;
        submit) WAYS="true zmailer postfix" SHORT=([true]=8000 [zmailer]=1600 [postfix]=800) ;;
        pickup) WAYS="down up" ;;
    esac
    [ $WITH_POSTFIX = yes ] || WAYS=${WAYS% postfix}
}

run_way() { "run_${CASE//-/_}" "$1" "$2"; }

# Syncs seen by the device with one process or session at work: nothing is there to share them with.
prove_syncs() {
    local way sessions=$SESSIONS submitters=$SUBMITTERS each
    SESSIONS=1 SUBMITTERS=1 RESULTS=$DIR/proof.tsv
    for way in zmailer postfix; do
        [[ " $WAYS " = *" $way "* ]] || continue
        run_way "$way" 200
        each=$(awk -F'\t' 'END {printf "%.2f", $9 / $2}' "$RESULTS")
        echo "$CASE, $way, one at a time: $each flushes a message seen by $DEVICE"
        awk -v each="$each" 'BEGIN {exit !(each >= 2)}' || void "$way: too few flushes a message: $each"
    done
    SESSIONS=$sessions SUBMITTERS=$submitters RESULTS=$DIR/$CASE.tsv
}

run_case() {
    local way round
    declare -A count
    CASE=$1 RESULTS=$DIR/$1.tsv
    set_up "$1"
    case $1 in
        list) prove_list $WAYS ;;
        maildir | submit) prove_syncs ;;
        pickup) run_pickups; return ;;
    esac
    for way in $WAYS; do
        calibrate "$way" "$SECONDS_EACH" "${SHORT[$way]}" "${SHORT[$way]}"
        count[$way]=$CALIBRATED
    done
    : >"$RESULTS"
    for round in $(seq "$ROUNDS"); do
        for way in $WAYS; do
            run_way "$way" "${count[$way]}"
            echo "round $round $CASE $way: $(last_rate) a second"
        done
    done
    rm -rf "$DIR"/read.*
    print_zmailer_settings
    if [[ " $WAYS " = *" postfix"* ]]; then print_postfix_settings; fi
}

run_pickups() {
    local way round
    for round in $(seq "$ROUNDS"); do
        for way in $WAYS; do
            RESULTS=$DIR/pickup-$way.tsv
            run_pickup "$way" "$FILES"
            echo "round $round $CASE, next hop $way: $(last_rate) a second"
        done
    done
}

# ---- output ----

report() {
    local name marks=""
    for name in "${!MARK[@]}"; do marks+=" $name=${MARK[$name]}"; done
    # shellcheck disable=SC2086
    (cd "$DIR" && awk -F'\t' -v hz="$(getconf CLK_TCK)" -v marks="$marks" -v json="$DIR/json" "$REPORT" $(report_files))
    [ -z "$JSON" ] || cp "$DIR/json" "$JSON"
}

report_files() {
    local name
    for name in large new-connection maildir list submit pickup-down pickup-down-removed pickup-up pickup-up-removed; do
        [ ! -s "$DIR/$name.tsv" ] || echo "$name.tsv"
    done
}

REPORT='
function median(list,   parts, n, i, j, t) {
    n = split(list, parts, " ")
    for (i = 2; i <= n; i++) for (j = i; j > 1 && parts[j-1]+0 > parts[j]+0; j--) {
        t = parts[j]; parts[j] = parts[j-1]; parts[j-1] = t
    }
    low = parts[1]; high = parts[n]
    return n % 2 ? parts[(n+1)/2] : (parts[n/2] + parts[n/2+1]) / 2
}
function add(what, value) { all[name, $1, what] = all[name, $1, what] " " value }
function judge(value, mark) {
    return sprintf("%.2f (mark %s: %s)", value, mark, value >= mark ? "reached" : "MISSED")
}
FNR == 1 { name = FILENAME; sub(/\.tsv$/, "", name); names[++n] = name }
{
    us = 1000000 / hz / $2
    add("rate", $2 * 1000 / $3); add("cpu", $4 * us); add("machine", $5 * us)
    add("idle", 100 * $6 / ($5 + $6)); add("flushes", $9 / $2); add("rss", $11 / 1024)
}
END {
    for (k = split(marks, list, " "); k > 0; k--) { split(list[k], pair, "="); mark[pair[1]] = pair[2] }
    print "| case | way | a second | spread | of direct | times Postfix | device flushes | daemon CPU us | machine CPU us | idle | RSS MiB |"
    print "|---|---|---|---|---|---|---|---|---|---|---|"
    text = ""
    for (c = 1; c <= n; c++) {
        name = names[c]; entry = ""
        base = (name, "direct", "rate") in all ? median(all[name, "direct", "rate"]) \
            : (name, "true", "rate") in all ? median(all[name, "true", "rate"]) : 0
        other = (name, "postfix", "rate") in all ? median(all[name, "postfix", "rate"]) : 0
        split("direct true zmailer postfix", ways, " ")
        for (w = 1; w <= 4; w++) {
            way = ways[w]
            if (!((name, way, "rate") in all)) continue
            rate = median(all[name, way, "rate"]); lo = low; hi = high
            plain = way == "direct" || way == "true"
            of = base ? sprintf("%.3f", rate / base) : ""
            times = other && !plain ? sprintf("%.2f", rate / other) : ""
            cpu = plain ? "" : sprintf("%.0f", median(all[name, way, "cpu"]))
            rss = plain ? "" : sprintf("%.0f", median(all[name, way, "rss"]))
            flushes = plain ? "" : sprintf("%.3f", median(all[name, way, "flushes"]))
            printf "| %s | %s | %.0f | %.0f-%.0f | %s | %s | %s | %s | %.0f | %.0f %% | %s |\n", name, way, rate, lo, hi, of, times, \
                flushes, cpu, median(all[name, way, "machine"]), median(all[name, way, "idle"]), rss
            entry = entry sprintf("%s\"%s\": {\"rate\": %.1f, \"low\": %.1f, \"high\": %.1f}", entry == "" ? "" : ", ", way, rate, lo, hi)
            if (way != "zmailer") continue
            if (other && (name "/postfix") in mark)
                verdict[++v] = name ": times Postfix " judge(rate / other, mark[name "/postfix"])
            if (base && (name "/direct") in mark)
                verdict[++v] = name ": of direct " judge(rate / base, mark[name "/direct"])
            if ((name "/rate") in mark) verdict[++v] = name ": a second " judge(rate, mark[name "/rate"])
        }
        text = text sprintf("%s\"%s\": {%s}", text == "" ? "" : ", ", name, entry)
    }
    print ""
    for (k = 1; k <= v; k++) print "- " verdict[k]
    print "{" text "}" >json
}'

main() {
    local name
    prepare
    WITH_POSTFIX=no
    if has_postfix; then WITH_POSTFIX=yes; fi
    ln -s "$(dirname "$ZMAILER")/sendmail" "$DIR/sendmail"
    print_machine
    floor
    make_message >"$DIR/message"
    for name in $ONLY; do run_case "$name"; done
    echo
    echo "$ROUNDS rounds of about $SECONDS_EACH s, medians; $SESSIONS sessions; 4 KiB a message, large: 100 KiB;" \
        "list: $LIST recipients; maildir: $USERS users, ours syncs file and directory, Postfix the file;" \
        "submit: $SUBMITTERS shells in a loop, both daemons running, way true is /bin/true in the same loop" \
        "and stands for direct; pickup: $FILES files"
    echo
    report
    if [ -s "$DIR/complaints" ]; then
        echo
        sort "$DIR/complaints" | uniq -c
    fi
    [ ! -s "$DIR/void" ] || { echo; cat "$DIR/void"; exit 1; }
}

main
