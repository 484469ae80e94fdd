#!/bin/sh
# Our own test binaries run in the guest.
. /test/guest.sh
. /test/arguments
[ $# -gt 0 ] || set -- a_revoked
run_tests conformance_tcp "$@" >/tmp/tests 2>&1
status=$?
cat /tmp/tests
[ $status -eq 0 ] || die "conformance_tcp: $status"
# A filter that no longer names a rule must not pass.
grep -q 'test result: ok. [1-9]' /tmp/tests || die "no test matches $*"
