#!/bin/sh
# Publishes interactions with kcat, one `user_id|JSON` a line on standard input: produce.sh BROKERS
# The key is the user, and the partitioner is that of the Java client and of marquee: one user's events must share a
# partition to stay in order.
exec kcat -P -b "$1" -t interactions -K '|' -X acks=all -X partitioner=murmur2_random
