#!/bin/sh
# Every fault that guest.sh can make is made, is seen to bite, and is undone.
. /test/guest.sh
load_modules
rail 1
for device in rxea rxeb; do until_true 30 "$device has an address" has_gid $device; done

# loaded: a pingpong that would go on for hours, in the background, seen to send.
loaded() {
	ibv_rc_pingpong -d rxea -g "$(gid rxea)" -n 100000000 >/tmp/load.a 2>&1 &
	load_a=$!
	until_true 30 'pingpong listens' port_listens 18515
	_before=$(counted rxeb sent_pkts)
	ibv_rc_pingpong -d rxeb -g "$(gid rxeb)" -n 100000000 10.8.0.1 >/tmp/load.b 2>&1 &
	load_b=$!
	until_true 60 'pingpong sends' counts_beyond rxeb sent_pkts $((_before + 20))
}
load_ended() { ! kill -0 "$load_a" 2>/dev/null || ! kill -0 "$load_b" 2>/dev/null; }
unload() {
	kill -9 "$load_a" "$load_b" 2>/dev/null
	wait "$load_a"
	wait "$load_b"
}

both() { echo $(($(counted rxea "$1") + $(counted rxeb "$1"))); }
stops() { load_ended || [ "$(both completer_retry_err)" -gt "$1" ]; }
# The end that is cut fails; the other sends again for ever, since rxe takes 7 retries for that. Which one has something
# to send at the time of the cut is chance.
for end in a b; do
	say "cut $end"
	loaded
	cut_link $end
	for device in rxea rxeb; do until_true 30 "$device is inactive" inactive $device; done
	got=$(both rcvd_pkts)
	until_true 60 "the cut of $end stops the pingpong" stops $(($(both completer_retry_err) + 1))
	[ "$(both rcvd_pkts)" = "$got" ] || die "something arrived while $end was cut"
	unload
	heal_link $end
	for device in rxea rxeb; do
		until_true 30 "$device is active again" active $device
		until_true 30 "$device has an address again" has_gid $device
	done
	pingpong rxea 10.8.0.1 rxeb 100 || die "no pingpong after $end was healed"
done

# Nothing fails here: the pingpong stands still, and goes on.
say 'loss 100%'
loaded
netem a loss 100%
until_true 60 'netem drops' drops_beyond a 2
before=$(counted rxeb rcvd_pkts)
until_true 60 'what is sent again is dropped again' drops_beyond a $(($(dropped a) + 2))
[ "$(counted rxeb rcvd_pkts)" = "$before" ] || die 'something came through a loss of 100%'
load_ended && die 'the loss ended the pingpong'
calm a
until_true 60 'the pingpong goes on' counts_beyond rxeb rcvd_pkts $((before + 20))
unload

# passes ARGUMENT…: under this trouble everything arrives all the same, through netem.
passes() {
	say "$*"
	netem a "$@"
	netem b "$@"
	pingpong rxea 10.8.0.1 rxeb 300 >/tmp/pingpong || die "no pingpong with $*"
	cat /tmp/pingpong
	tc -s qdisc show dev va
	through=$(passed a)
	[ "$through" -gt 300 ] || die "nothing went through netem $*"
	lost=$(($(dropped a) + $(dropped b)))
	calm a
	calm b
	! tc qdisc show | grep netem || die 'netem is still there'
}
# grew WHAT BEFORE NOW
grew() {
	echo "$1: $2, then $3"
	[ "$3" -gt "$2" ] || die "$1 did not grow"
}

# The one bound on time that no slowness can break.
passes delay 5ms
grew 'microseconds of a round of 10 ms' 9999 "$(sed -n 's/.*seconds = \([0-9]*\).*usec.*/\1/p' /tmp/pingpong)"
before=$(both out_of_seq_request)
passes delay 2ms reorder 75% 50%
grew 'out of sequence' "$before" "$(both out_of_seq_request)"
before=$(both duplicate_request)
passes duplicate 5%
grew 'duplicates' "$before" "$(both duplicate_request)"
passes loss 2%
grew 'lost' 0 $lost
# rxe counts what it receives once the checksum is found right. A few of what is missing are not RDMA but IPv6's own.
before=$(counted rxeb rcvd_pkts)
passes corrupt 5%
[ $lost -eq 0 ] || die 'netem lost what it should have corrupted'
grew 'not received' 20 $((through + before - $(counted rxeb rcvd_pkts)))
