#!/bin/sh
# The daemon, its clients and its commands over libibverbs: blocks in and out, `stat`, `doctor peer`, a trace replayed, and
# the benchmark between two processes. Each test in a process of its own.
. /test/guest.sh
. /test/arguments
two_rails
# There are devices: whoever skips has not found them.
all_of() {
	_of=$1
	shift
	run_each "$_of" 100 "$@"
	[ $_skipped -eq 0 ] || die "$_skipped of $_of were skipped"
}
# A binary and filters, or all.
if [ $# -gt 0 ]; then
	all_of "$@"
	exit 0
fi
all_of cache_rdma over_verbs
all_of it verbs what_cannot_be_opened
