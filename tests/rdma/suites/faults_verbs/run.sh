#!/bin/sh
# The network fails under libibverbs.
. /test/guest.sh
. /test/arguments
two_rails
run_tests faults_verbs --test-threads 1 "$@" 2>&1
status=$?
[ $status -eq 0 ] || die "faults_verbs: $status"
