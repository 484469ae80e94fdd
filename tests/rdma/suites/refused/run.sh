#!/bin/sh
# Bad input against libibverbs and the devices: each is refused in one line, and nothing else is disturbed.
. /test/guest.sh
. /test/arguments
load_modules
rail 1
rail 2
for device in rxea rxeb rxec rxed; do
	until_true 30 "$device is active" active $device
	until_true 30 "$device has an address" has_gid $device
done
run_each refused_verbs 200 "$@"
[ $_skipped -eq 0 ] || die "$_skipped were skipped"
