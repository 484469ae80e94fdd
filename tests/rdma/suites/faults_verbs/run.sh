#!/bin/sh
# The network fails under libibverbs.
. /test/guest.sh
. /test/arguments
load_modules
rail 1
rail 2
for device in rxea rxeb rxec rxed; do
	until_true 30 "$device has an address" has_gid $device
done
run_tests faults_verbs --test-threads 1 "$@" 2>&1
status=$?
[ $status -eq 0 ] || die "faults_verbs: $status"
