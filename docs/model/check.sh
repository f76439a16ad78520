#!/bin/sh
# Checks the model with Spin: the whole protocol must hold, and without each of its protections it must not.
# usage: docs/model/check.sh [NAME…]; without names, all of them. SHORT=1 leaves out the largest search.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
for tool in spin cc; do
	command -v $tool >/dev/null || { echo "missing: $tool (Debian: apt-get install spin gcc libc6-dev)" >&2; exit 2; }
done
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM
cp "$here/commit.pml" "$dir"
cd "$dir"
names=" $* "
faults=0

# search NAME WANT FLAGS…: WANT is "holds", or words of the counterexample that must be found.
search() {
	name=$1 want=$2
	shift 2
	case $names in "  " | *" $name "*) ;; *) return ;; esac
	spin -a "$@" commit.pml >spin.out || { cat spin.out; exit 1; }
	cc -O2 -w -DSAFETY -DCOLLAPSE -DMEMLIM=8000 -o pan pan.c
	./pan -m100000 >pan.out 2>&1 || true
	states=$(awk '/states, stored/ { print $1 }' pan.out)
	found=$(sed -n 's/^pan:1: //p' pan.out | cut -c1-110)
	verdict=ok
	if test "$want" = holds; then
		grep -q 'errors: 0$' pan.out && ! grep -Eq 'Search not completed|max search depth too small' pan.out || verdict=FAULT
	else
		case $found in *"$want"*) ;; *) verdict=FAULT ;; esac
	fi
	printf '%-7s %-24s %12s states  %s\n' "$verdict" "$name" "${states:-?}" "${found:-holds}"
	if test $verdict = FAULT; then
		faults=$((faults + 1))
		cat pan.out
	fi
}

few="-DJOINS=2 -DKILLS=0 -DEXPELS=1 -DLOSSES=0"
some="-DJOINS=2 -DKILLS=0 -DEXPELS=1 -DLOSSES=1"
dead="-DJOINS=2 -DKILLS=1 -DEXPELS=0 -DLOSSES=0"

# The whole protocol. Without the transaction timeout too: no takeover depends on it.
test "${SHORT:-}" = 1 || search whole holds -DJOINS=2 -DKILLS=1 -DEXPELS=1 -DLOSSES=1
search whole-lost-answers holds $some
search whole-killed holds -DJOINS=3 -DKILLS=1 -DEXPELS=0 -DLOSSES=0
search whole-zombie holds -DJOINS=3 -DKILLS=0 -DEXPELS=1 -DLOSSES=0 -DEVENTS=1
search whole-no-timeout holds -DJOINS=2 -DKILLS=1 -DEXPELS=0 -DLOSSES=1 -DNO_TIMEOUT
# It does all that it is to survive: the search finds a run with every fault, at whose end all is counted.
search reached "done==" $some -DREACHED

search no-generation "assertion violated" $few -DNO_GENERATION
search no-fencing "invalid end state" $dead -DNO_FENCING -DNO_TIMEOUT
search no-stable-offsets "assertion violated" $few -DNO_STABLE_OFFSETS
search no-late-markers "assertion violated" $few -DNO_WAIT_FOR_LATE_MARKERS
search no-read-committed "table[" $few -DNO_READ_COMMITTED
search no-second-look "assertion violated" $few -DNO_SECOND_LOOK
search no-fresh-producers "invalid end state" $some -DNO_FRESH_PRODUCERS -DNO_TIMEOUT
search no-flush-after-commit "table[" $few -DNO_FLUSH_AFTER_COMMIT
search no-wait-for-endtxn "==done" $few -DNO_WAIT_FOR_ENDTXN
search no-giving-up "assertion violated" $some -DNO_GIVING_UP
search no-rebuilding "==done" $some -DNO_REBUILDING
search no-order-of-offsets "offsetNext" $few -DNO_ORDER_OF_OFFSETS

test $faults = 0 || { echo "$faults faults"; exit 1; }
