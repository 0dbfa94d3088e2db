#!/bin/sh
# Prints the request logs from the beginning to the end of the topic with kcat: consume.sh BROKERS
exec kcat -C -b "$1" -t request-logs -o beginning -e -q
