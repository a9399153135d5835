#!/usr/bin/env bash
# Interop with peers that nobody here wrote: runs the real `callgate serve` against them.
# tests/run.sh [NAME...] runs the cases whose names begin so; --list shows them all.
# $CALLGATE_BIN names a build to test (with callgate-speech beside it); without it the present source is built.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -z "${CALLGATE_BIN:-}" ] && [[ ! " $* " =~ \ (--list|--help|-h)\  ]]; then
  cargo build --locked --quiet -p callgate -p callgate-speech
  export CALLGATE_BIN=${CARGO_TARGET_DIR:-target}/debug/callgate
fi
exec python3 -B tests/interop.py "$@"
