#!/bin/sh
# Our own test binaries run in the guest.
. /test/guest.sh
. /test/arguments
[ $# -gt 0 ] || set -- a_revoked
run_tests conformance_tcp "$@"
