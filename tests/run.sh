#!/usr/bin/env bash
# Interop with peers that nobody here wrote: runs the real `callgate serve` against them.
# tests/run.sh [NAME...] runs the cases whose names begin so; --list shows them all.
set -euo pipefail
cd "$(dirname "$0")/.."

export CALLGATE_BIN=${CALLGATE_BIN:-${CARGO_TARGET_DIR:-target}/debug/callgate}
speech=$(dirname "$CALLGATE_BIN")/callgate-speech
if [ ! -x "$CALLGATE_BIN" ] || [ ! -x "$speech" ]; then
  echo "building $CALLGATE_BIN"
  cargo build --locked -p callgate -p callgate-speech
fi
exec python3 -B tests/interop.py "$@"
