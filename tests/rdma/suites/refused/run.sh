#!/bin/sh
# Bad input against libibverbs and the devices: each is refused in one line, and nothing else is disturbed.
. /test/guest.sh
. /test/arguments
modprobe vgem # exports dma-bufs
two_rails
run_each refused_verbs 200 "$@"
[ $_skipped -eq 0 ] || die "$_skipped were skipped"
