#!/bin/sh
# Two guests: the cable is pulled under traffic, which stops, and plugged, after which bytes cross again.
. /test/guest.sh
on_the_cable

# exchange -p PORT -n ROUNDS [SERVER]
exchange() { ibv_rc_pingpong -d rxe0 -g "$(gid rxe0)" "$@"; }
# b serves two: one that the cable stops, and one for afterwards, which ends the guest.
if [ $role = b ]; then
	exchange -p 18515 -n 100000000 >/tmp/load 2>&1 &
	until_true 200 'pingpong after the plug' exchange -p 18516 -n 100
	exit 0
fi

ended() { ! kill -0 "$load" 2>/dev/null; }
# Whether b listens cannot be seen from here, so whoever is not heard tries again.
under_load() {
	before=$(counted rxe0 sent_pkts)
	exchange -p 18515 -n 100000000 $peer >/tmp/load 2>&1 &
	load=$!
	until counts_beyond rxe0 sent_pkts $((before + 20)); do
		ended && return 1
		sleep 0.1
	done
}
until_true 60 'a pingpong' under_load
carrier 1 || die 'no carrier before the pull'
moving() { counts_beyond rxe0 rcvd_pkts "$1"; }
until_true 60 'bytes move' moving "$(counted rxe0 rcvd_pkts)"
pull
got=$(counted rxe0 rcvd_pkts)
! reaches || die 'the other guest answers without a cable'
[ "$(counted rxe0 rcvd_pkts)" = "$got" ] || die 'something arrived without a cable'
plug
# Whoever had something to send at the time of the pull decides: a fails, b sends again until it is heard.
goes_on() { ended || moving "$got"; }
until_true 60 'the pingpong goes on, or has failed' goes_on
until_true 120 'pingpong after the plug' exchange -p 18516 -n 100 $peer
