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
	before=$(sent rxeb)
	ibv_rc_pingpong -d rxeb -g "$(gid rxeb)" -n 100000000 10.8.0.1 >/tmp/load.b 2>&1 &
	load_b=$!
	until_true 60 'pingpong sends' sends_beyond rxeb $((before + 20))
}
load_ended() { ! kill -0 $load_a 2>/dev/null || ! kill -0 $load_b 2>/dev/null; }
# One end's queue pair runs out of retries; the other may wait for ever.
load_broke() {
	until_true 90 "$1 stops the pingpong" load_ended
	kill -9 $load_a $load_b 2>/dev/null
	wait $load_a
	wait $load_b
	cat /tmp/load.a /tmp/load.b | grep -i 'fail' || die "$1: the pingpong ended without an error"
}
for end in a b; do
	say "cut $end"
	loaded
	cut_link $end
	load_broke "cut $end"
	heal_link $end
	until_true 30 "rxe$end is active again" active rxe$end
	until_true 30 "rxe$end has an address again" has_gid rxe$end
	pingpong rxea 10.8.0.1 rxeb 100 || die "no pingpong after $end was healed"
done
say 'loss 100%'
loaded
netem a loss 100%
load_broke 'loss 100%'
tc -s qdisc show dev va | grep -E 'dropped [1-9]' || die 'netem dropped nothing'
calm a
pingpong rxea 10.8.0.1 rxeb 100 || die 'no pingpong after the loss'
# passes ARGUMENT…: under this trouble everything arrives all the same, through netem.
passes() {
	say "$*"
	netem a "$@"
	netem b "$@"
	pingpong rxea 10.8.0.1 rxeb 200 || die "no pingpong with $*"
	tc -s qdisc show dev va | tee /tmp/qdisc
	grep -qE 'Sent [1-9]' /tmp/qdisc || die "nothing went through netem $*"
	calm a
	calm b
}
passes delay 5ms
passes delay 2ms reorder 75% 50%
passes duplicate 2%
passes loss 2%
passes corrupt 1%
