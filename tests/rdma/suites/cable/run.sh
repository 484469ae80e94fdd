#!/bin/sh
# Two guests: the cable is pulled under traffic, which breaks, and plugged, after which bytes cross again.
. /test/guest.sh
modprobe virtio_net
load_modules
if grep -q role=a /proc/cmdline; then role=a me=10.7.0.1 peer=10.7.0.2; else role=b me=10.7.0.2 peer=10.7.0.1; fi
has_nic() { nic=$(ls /sys/class/net | grep -v '^lo$' | head -1) && [ -n "$nic" ]; }
until_true 30 'a network device' has_nic
ip link set "$nic" mtu 4200 up
ip addr add $me/24 dev "$nic"
rdma link add rxe0 type rxe netdev "$nic"
until_true 30 'rxe0 has an address' has_gid rxe0
reaches() { ping -c 1 -W 1 $peer >/dev/null 2>&1; }
until_true 90 'the other guest' reaches
carrier() { [ "$(cat /sys/class/net/"$nic"/carrier)" = "$1" ]; }
# b serves one pingpong after the other; a tries until it is heard, since it cannot see that b listens.
if [ $role = b ]; then
	until [ -e /tmp/done ]; do
		timeout 60 ibv_rc_pingpong -d rxe0 -g "$(gid rxe0)" -n 100000000 >/tmp/b 2>&1
		cat /tmp/b
		grep -qi fail /tmp/b && break
	done
	timeout 200 ibv_rc_pingpong -d rxe0 -g "$(gid rxe0)" -n 100 || die 'b: no pingpong after the cable was plugged'
	exit 0
fi
heard() { timeout 60 ibv_rc_pingpong -d rxe0 -g "$(gid rxe0)" -n 100 $peer; }
start() {
	ibv_rc_pingpong -d rxe0 -g "$(gid rxe0)" -n 100000000 $peer >/tmp/a 2>&1 &
	load=$!
	before=$(sent rxe0)
	sleep 1
	kill -0 $load 2>/dev/null
}
until_true 60 'pingpong is heard' start
until_true 60 'pingpong sends' sends_beyond rxe0 $((before + 20))
echo '@cable off'
until_true 30 'the cable is pulled' carrier 0
gone() { ! kill -0 $load 2>/dev/null; }
until_true 90 'the pull stops the pingpong' gone
cat /tmp/a
grep -qi fail /tmp/a || die 'the pingpong ended without an error'
echo '@cable on'
until_true 30 'the cable is plugged' carrier 1
until_true 60 'the other guest again' reaches
until_true 120 'pingpong after the plug' heard
