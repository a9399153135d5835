#!/usr/bin/env bash
# Every test: the members' own, the fuzz targets for ten seconds each, and calls with peers that
# nobody here wrote. Prints the seconds of each stage; the first that fails ends it.
set -euo pipefail
cd "$(dirname "$0")/.."

stage() {
  local name=$1 began=$SECONDS
  shift
  echo "-- $name"
  "$@"
  echo "-- $name: $((SECONDS - began)) s"
}

unit() {
  if command -v cargo-nextest >/dev/null; then
    cargo nextest run --workspace --locked
  else
    cargo test --workspace --locked
  fi
}

# The tests of the providers start the speech helper, which is a program of its own.
stage programs cargo build --workspace --locked --bins
stage tests unit
stage fuzz fuzz/run.sh 10
stage interop tests/run.sh
