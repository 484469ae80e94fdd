# Functions for suites; sourced in the guest by dash. Nothing here may assert on time: the guest is emulated.
# shellcheck shell=sh

# Tests start a program by the path that it was built at.
if [ -e /test/programs ]; then
	while read -r _path; do
		mkdir -p "${_path%/*}"
		ln -sf "/test/${_path##*/}" "$_path"
	done </test/programs
fi

say() { echo "--- $*"; }
die() {
	echo "FAILED: $*"
	exit 1
}

# until_true SECONDS WHAT COMMAND…: polls the command, since neither sysfs nor procfs can be waited for.
until_true() {
	_seconds=$1 _what=$2
	shift 2
	_end=$(($(cut -d. -f1 /proc/uptime) + _seconds))
	until "$@"; do
		[ "$(cut -d. -f1 /proc/uptime)" -lt $_end ] || die "$_what: not within $_seconds s"
		sleep 0.1
	done
}

load_modules() {
	# rxe asks for its checksum by name, and nothing loads it for it.
	for _module in crc32_generic crc32_pclmul rdma_rxe rdma_ucm ib_uverbs veth sch_netem; do
		modprobe $_module 2>/dev/null || true
	done
}

# Rail 1: va, rxea, 10.8.0.1 and vb, rxeb, 10.8.1.2. Rail 2: vc, rxec, 10.8.2.1 and vd, rxed, 10.8.3.2.
# `ip link set down` flushes these, so each heal sets them again.
routes() {
	if [ "$1" = 1 ]; then
		ip route replace 10.8.1.2/32 dev va src 10.8.0.1
		ip route replace 10.8.0.1/32 dev vb src 10.8.1.2
	else
		ip route replace 10.8.3.2/32 dev vc src 10.8.2.1
		ip route replace 10.8.2.1/32 dev vd src 10.8.3.2
	fi
}

# rxe cannot be moved into a network namespace, so both ends are in one, and what each sends to the other leaves by
# its veth since the local table is asked last. TCP between the same addresses goes over lo.
rail() {
	if [ "$1" = 1 ]; then _x=a _y=b _ax=10.8.0.1 _ay=10.8.1.2; else _x=c _y=d _ax=10.8.2.1 _ay=10.8.3.2; fi
	ip link add v$_x type veth peer name v$_y
	echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter
	for _i in $_x $_y; do
		ip link set "v$_i" mtu 4200 up
		echo 1 >"/proc/sys/net/ipv4/conf/v$_i/accept_local"
		echo 0 >"/proc/sys/net/ipv4/conf/v$_i/rp_filter"
		ip rule add pref 10 iif "v$_i" lookup local
	done
	ip addr add $_ax/24 dev v$_x
	ip addr add $_ay/24 dev v$_y
	if ip rule | grep -q '^0:'; then
		ip rule add pref 32000 lookup local
		ip rule del pref 0
	fi
	routes "$1"
	rdma link add rxe$_x type rxe netdev v$_x
	rdma link add rxe$_y type rxe netdev v$_y
}

# One of the two guests of `pair`: sets role, me, peer and nic, makes rxe0 on the cable, and waits for the other.
has_nic() {
	for nic in /sys/class/net/e*; do [ -e "$nic" ] && nic=${nic##*/} && return; done
	return 1
}
reaches() { ping -c 1 -W 1 "$peer" >/dev/null 2>&1; }
carrier() { [ "$(cat /sys/class/net/"$nic"/carrier)" = "$1" ]; }
on_the_cable() {
	modprobe virtio_net
	load_modules
	if grep -q role=a /proc/cmdline; then role=a me=10.7.0.1 peer=10.7.0.2; else role=b me=10.7.0.2 peer=10.7.0.1; fi
	until_true 30 'a network device' has_nic
	ip link set "$nic" mtu 4200 up
	ip addr add $me/24 dev "$nic"
	rdma link add rxe0 type rxe netdev "$nic"
	until_true 30 'rxe0 has an address' has_gid rxe0
	until_true 90 'the other guest' reaches
}
# Guest a pulls the cable, and plugs it.
pull() {
	echo '@cable off'
	until_true 30 'the cable is pulled' carrier 0
	until_true 30 'rxe0 is inactive' inactive rxe0
}
plug() {
	echo '@cable on'
	until_true 30 'the cable is plugged' carrier 1
	until_true 60 'the other guest again' reaches
}

cut_link() { ip link set "v$1" down; }
heal_link() {
	ip link set "v$1" up
	case $1 in a | b) routes 1 ;; *) routes 2 ;; esac
}

# netem a loss 2%, netem a delay 5ms, netem a corrupt 1%, netem a delay 2ms reorder 75% 50%, netem a duplicate 2%
netem() {
	_end=$1
	shift
	tc qdisc replace dev "v$_end" root netem "$@"
}
calm() { tc qdisc del dev "v$1" root; }
# How many packets an end's netem has let through, and how many it has dropped.
passed() { tc -s qdisc show dev "v$1" | sed -n 's/.* bytes \([0-9]*\) pkt .*/\1/p'; }
dropped() { tc -s qdisc show dev "v$1" | sed -n 's/.*(dropped \([0-9]*\),.*/\1/p'; }
drops_beyond() { [ "$(dropped "$1")" -gt "$2" ]; }

# The index of a device's RoCE v2 address over IPv4.
gid() {
	for _file in /sys/class/infiniband/"$1"/ports/1/gid_attrs/types/*; do
		_n=${_file##*/}
		[ "$(cat "$_file" 2>/dev/null)" = 'RoCE v2' ] || continue
		case $(cat /sys/class/infiniband/"$1"/ports/1/gids/"$_n") in
		0000:0000:0000:0000:0000:ffff:*) echo "$_n" && return ;;
		esac
	done
	return 1
}
has_gid() { gid "$1" >/dev/null; }
active() { ibv_devinfo -d "$1" | grep -q PORT_ACTIVE; }
inactive() { ! active "$1"; }
# counted DEVICE COUNTER, counts_beyond DEVICE COUNTER NUMBER: sent_pkts, rcvd_pkts, duplicate_request, rcvd_seq_err, …
counted() { cat "/sys/class/infiniband/$1/ports/1/hw_counters/$2"; }
counts_beyond() { [ "$(counted "$1" "$2")" -gt "$3" ]; }
port_listens() { cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk -v p=":$(printf %04X "$1")$" '$2 ~ p && $4 == "0A" { f = 1 } END { exit !f }'; }

# Both rails, all devices of them ready.
two_rails() {
	load_modules
	rail 1
	rail 2
	for _device in rxea rxeb rxec rxed; do
		until_true 30 "$_device is active" active $_device
		until_true 30 "$_device has an address" has_gid $_device
	done
}

# pingpong SERVER-DEVICE SERVER-ADDRESS CLIENT-DEVICE ROUNDS: the status is the client's.
pingpong() {
	timeout 90 ibv_rc_pingpong -d "$1" -g "$(gid "$1")" -n "$4" >/tmp/server 2>&1 &
	_server=$!
	until_true 30 'pingpong listens' port_listens 18515
	_status=0
	timeout 90 ibv_rc_pingpong -d "$3" -g "$(gid "$3")" -n "$4" "$2" || _status=$?
	[ $_status -eq 0 ] || kill $_server 2>/dev/null
	wait $_server || true
	return $_status
}

# run_tests BINARY ARGUMENT…: what it says is kept in /out line by line, for when the limit ends the guest.
run_tests() {
	_binary=$1
	shift
	{
		TMPDIR=/tmp RUST_BACKTRACE=1 "/test/$_binary" "$@" 2>&1
		echo $? >/tmp/status
	} | tee "/out/$_binary"
	_status=$(cat /tmp/status)
	[ "$_status" -eq 0 ] || die "$_binary: $_status"
	# A filter that no longer names a rule must not pass.
	grep -q '^test result: ok. [1-9]' "/out/$_binary" || die "no test of $_binary matches $*"
}

# Where each thread of a process is in the kernel.
threads() {
	for _task in /proc/"$1"/task/*; do
		echo "$(cat "$_task/comm"): $(sed 's/^[^ ]* //' "$_task/stack" 2>/dev/null | head -6 | tr '\n' ' ')"
	done
}

# run_each BINARY SECONDS ARGUMENT…: each test in a process of its own that may take so long; what fails is printed and
# kept in /out, and all are run.
run_each() {
	_binary=$1 _seconds=$2
	shift 2
	TMPDIR=/tmp "/test/$_binary" --list "$@" | sed -n 's/: test$//p' >/tmp/names
	[ -s /tmp/names ] || die "no test of $_binary matches $*"
	_passed=0 _skipped=0 _failed=
	while read -r _name <&3; do
		_status=0
		_began=$(cut -d. -f1 /proc/uptime)
		TMPDIR=/tmp RUST_BACKTRACE=1 "/test/$_binary" --exact --nocapture "$_name" >/tmp/test 2>&1 </dev/null &
		_process=$!
		while kill -0 $_process 2>/dev/null && [ "$(cut -d. -f1 /proc/uptime)" -lt $((_began + _seconds)) ]; do
			sleep 0.1
		done
		if kill -0 $_process 2>/dev/null; then
			echo "rdma: $_name hangs at its limit of $_seconds s, its threads in the kernel:" >>/tmp/test
			threads $_process >>/tmp/test
			kill -9 $_process
		fi
		wait $_process || _status=$?
		_took=$(($(cut -d. -f1 /proc/uptime) - _began))
		if [ $_status -eq 0 ]; then
			_why=$(sed -n 's/.*\(skipped: .*\)/\1/p' /tmp/test | head -1)
			if [ -n "$_why" ]; then _skipped=$((_skipped + 1)); else _passed=$((_passed + 1)); fi
			echo "ok $_name, $_took s${_why:+, $_why}"
		else
			_failed="$_failed $_name"
			cp /tmp/test "/out/$_name"
			echo "FAILED $_name, status $_status, $_took s"
			head -60 /tmp/test
		fi
	done 3</tmp/names
	echo "$_binary: $_passed passed, $_skipped skipped"
	[ -z "$_failed" ] || die "these of $_binary did not pass:$_failed"
	# A machine on which everything is skipped shows nothing.
	[ $_passed -gt 0 ] || die "no test of $_binary was run"
}
