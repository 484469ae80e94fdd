#!/bin/sh
# The conformance rules over libibverbs, on two rails of two devices each: all of them, or those that the arguments name.
# Each in a process of its own, so that one that hangs or crashes is named and the others are run.
. /test/guest.sh
. /test/arguments
two_rails
# rxe pins what is registered, twice 4 GiB in these rules, and carries some 50 MB/s.
seconds=400
if [ "$(awk '/^MemAvailable:/ { print $2 }' /proc/meminfo)" -lt 10485760 ]; then
	for rule in more_than_four_gib pages_beyond_four_gib; do
		echo "skipped: $rule needs 10 GiB of free memory (TRANSHIP_RDMA_MIB=12288)"
		set -- "$@" --skip $rule
	done
	seconds=60
fi
run_each conformance_verbs $seconds "$@"
