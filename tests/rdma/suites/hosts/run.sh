#!/bin/sh
# Two guests: b runs the daemon, a its clients over verbs, and the cable between them is pulled in the middle of
# transfers. Each command ends in time and in one line, and once the cable is back the same daemon serves over rails.
. /test/guest.sh
on_the_cable
echo swordfish >/tmp/token
export TRANSHIP_TCP_TOKEN_FILE=/tmp/token
to=verbs://10.7.0.2:7421

if [ $role = b ]; then
	tranship serve --listen "unix:///tmp/tranship.sock,$to" --capacity 768MiB --metrics off >/out/serve 2>&1 &
	daemon=$!
	is_through() { tranship get through --connect unix:///tmp/tranship.sock >/dev/null 2>&1; }
	until_true 500 'the other guest is through' is_through
	kill -0 $daemon || die 'the daemon has ended'
	kill $daemon
	wait $daemon || die "the daemon: $?"
	grep -i panic /out/serve && die 'a panic'
	exit 0
fi

# in_time STATUS WHAT COMMAND…: it ends with that status (`any` but 0) and says why in one line.
in_time() {
	_wanted=$1 _what=$2
	shift 2
	_began=$(cut -d. -f1 /proc/uptime)
	timeout 120 "$@" >/tmp/said.out 2>/tmp/said
	_status=$?
	say "$_what: status $_status after $(($(cut -d. -f1 /proc/uptime) - _began)) s: $(cat /tmp/said)"
	[ $_status -ne 124 ] || die "$_what hangs"
	# shellcheck disable=SC2015 # as it says
	case $_wanted in any) [ $_status -ne 0 ] ;; *) [ $_status -eq "$_wanted" ] ;; esac || die "$_what: status $_status"
	[ "$(wc -l </tmp/said)" -eq 1 ] || die "$_what: not one line"
}
ship() { tranship "$@" --connect $to --timeout 10s; }
path_up() { tranship doctor peer $to --timeout 10s --json >/tmp/peer 2>/tmp/peer.err && grep -q '"paths":\[.*"state":"up"' /tmp/peer; }
block() { dd if=/dev/urandom of=/tmp/block.$1 bs=65536 count=$2 2>/dev/null; }
# same NAME: what the daemon has is what was put, and it came by the rail.
same() {
	_before=$(counted rxe0 rcvd_pkts)
	ship get $1 -o /tmp/got || die "get $1"
	cmp /tmp/got /tmp/block.$1 || die "$1 has other bytes"
	_bytes=$(wc -c </tmp/block.$1)
	[ $(($(counted rxe0 rcvd_pkts) - _before)) -ge $((_bytes / 4096)) ] || die "$1 did not come by the rail"
}

until_true 100 'a path to the daemon' path_up
say "$(cat /tmp/peer)"
for name in 1 2 3; do
	block $name $((name * 7))
	ship put $name /tmp/block.$name || die "put $name"
	same $name
done
# So much that the cable is pulled in the middle of it.
block large 640
ship put large /tmp/block.large || die 'put large'
same large
block other 640
tranship trace synth --requests 300 --output /tmp/trace || die 'no trace'

# under_way COMMAND…: it moves bytes by the rail. Where all is slow no path is there in time, and payload takes TCP: again, then.
under_way() {
	rm -f /tmp/ended
	_from=$(counted rxe0 $moved)
	{ in_time any "$*" tranship "$@" --connect $to --timeout 10s && touch /tmp/well; touch /tmp/ended; } >/tmp/told &
	until counts_beyond rxe0 $moved $((_from + 500)); do
		[ -e /tmp/ended ] || { sleep 0.1 && continue; }
		cat /tmp/told
		ship rm other >/dev/null 2>&1
		return 1
	done
}
for command in 'get large -o /tmp/cut' 'put other /tmp/block.other'; do
	case $command in get*) moved=rcvd_pkts ;; *) moved=sent_pkts ;; esac
	rm -f /tmp/well
	# shellcheck disable=SC2086 # words
	until_true 200 "$command moves bytes" under_way $command
	pull
	[ ! -e /tmp/ended ] || die "$command ended before the cable was pulled"
	wait
	cat /tmp/told
	[ -e /tmp/well ] || die "$command"
	# Without a cable there is neither a rail nor a daemon.
	in_time any stat tranship stat --connect $to --timeout 5s
	grep -q 'the port is down; plug in the cable' /tmp/said || die 'stat does not say why'
	in_time any 'doctor peer' tranship doctor peer $to --timeout 5s
	in_time any 'get 1' tranship get 1 --connect $to --timeout 5s
	plug
	until_true 100 'a path to the daemon' path_up
	for name in 1 2 3 large; do same $name; done
done
# What was half stored is not there, and can be stored.
in_time 3 'get other' tranship get other --connect $to --timeout 10s
ship put other /tmp/block.other || die 'put other'
same other

# Who stays connected through it: loads become misses, and go on.
tranship trace replay --trace /tmp/trace --connect $to --bytes-per-token 64 --speed 10 --engines 1 --every 5 --json \
	>/tmp/replay 2>/tmp/replay.err &
replay=$!
played() { [ "$(wc -l </tmp/replay)" -ge "$1" ]; }
until_true 100 'the replay begins' played 2
pull
until_true 200 'the replay goes on without a daemon' played $(($(wc -l </tmp/replay) + 2))
plug
kill -0 $replay || die 'the replay has ended'
wait $replay || die "the replay: $? $(cat /tmp/replay.err)"
tail -1 /tmp/replay
tail -1 /tmp/replay | grep -q '"corrupt":0' || die 'corrupt'
tail -1 /tmp/replay | grep -q '"unavailable":[1-9]' || die 'the replay has not noticed'
until_true 100 'a path to the daemon' path_up
for name in 1 2 3 large other; do same $name; done
ship put through /tmp/block.1 || die 'put through'
