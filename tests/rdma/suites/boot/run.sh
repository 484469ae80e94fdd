#!/bin/sh
# The guest comes up, all four devices are active, and bytes cross each rail.
. /test/guest.sh
two_rails
for device in rxea rxeb rxec rxed; do
	say "$device active, gid $(gid $device)"
done
pingpong rxea 10.8.0.1 rxeb 500 || die 'no pingpong on rail 1'
pingpong rxec 10.8.2.1 rxed 500 || die 'no pingpong on rail 2'
