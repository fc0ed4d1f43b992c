#!/bin/sh
# check.sh FOLDER COMMAND...   Runs every script of FOLDER on standard input of COMMAND and compares output and status.
# DIFF=1 shows the differences.
base=$(cd "$(dirname "$0")" && pwd)
folder=$1
shift
good=0
bad=0
for script in "$base/$folder"/*.zmsh; do
	name=$(basename "$script" .zmsh)
	work=$(mktemp -d)
	cp -r "$base/open/data" "$work/data"
	: > "$work/empty.cf"
	want=0
	[ -f "$base/$folder/$name.rc" ] && want=$(cat "$base/$folder/$name.rc")
	(cd "$work" && env -i PATH=/usr/bin:/bin HOME=/nonexistent LC_ALL=C timeout 15 "$@" < "$script" > out 2> err)
	status=$?
	if [ "$status" = "$want" ] && cmp -s "$work/out" "$base/$folder/$name.out"; then
		good=$((good + 1))
	else
		bad=$((bad + 1))
		echo "differs: $name (status $status, expected $want)"
		[ -n "$DIFF" ] && diff "$base/$folder/$name.out" "$work/out"
	fi
	rm -rf "$work"
done
echo "$folder: $good as recorded, $bad not"
[ "$bad" = 0 ]
