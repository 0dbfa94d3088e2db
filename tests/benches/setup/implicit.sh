#!/bin/sh
# Makes a Python environment with the peer that training is timed against, once.
# Usage: implicit.sh DIRECTORY; prints the path of its interpreter as the last line.
set -eu

directory=$1
python="$directory/venv/bin/python"
# Pinned, so that two runs of the benchmark compare with the same peer.
stamp="implicit==0.7.3 numpy==2.4.6 scipy==1.17.1 pyarrow==26.0.1 threadpoolctl"

if [ ! -f "$directory/stamp" ] || [ "$(cat "$directory/stamp")" != "$stamp" ]; then
    mkdir -p "$directory"
    python3 -m venv --clear "$directory/venv"
    # shellcheck disable=SC2086 # the stamp is a list of requirements
    "$python" -m pip install --quiet --disable-pip-version-check $stamp >&2
    printf '%s' "$stamp" >"$directory/stamp"
fi
echo "$python"
