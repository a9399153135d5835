#!/usr/bin/env bash
# Measures callgate against its peers (benches/compare), in one run on this machine:
#   deploy/compare.sh            everything but the soak, about half an hour
#   deploy/compare.sh relay srtp some of it (--help lists what there is)
#   deploy/compare.sh soak       ten minutes with churn
# Installs the peers where they are missing, builds, and leaves JSON, Markdown (a report, and the
# README's table), HTML and a plot in a folder of the run's under data/compare, after each part anew.
# For figures that mean something the machine must have nothing else to do.
set -euo pipefail
cd "$(dirname "$0")/.."

# libssl-dev and gcc: the program of OpenSSL's side of DTLS handshakes is compiled by `compare`.
peers=(rtpengine-daemon kamailio kamailio-tls-modules libssl-dev gcc)
missing=()
for package in "${peers[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  echo "Installing: ${missing[*]}"
  sudo=()
  [ "$(id -u)" -eq 0 ] || sudo=(sudo)
  # The peers are started by the harness, never as services: one that the system starts would take
  # the machine's time.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" tee "$policy" >/dev/null
    "${sudo[@]}" chmod +x "$policy"
    trap '"${sudo[@]}" rm -f "$policy"' EXIT
  fi
  export DEBIAN_FRONTEND=noninteractive
  "${sudo[@]}" apt-get update -qq
  "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

# Two sockets a leg, and whole calls by the thousand.
ulimit -n "$(ulimit -Hn)"
cargo build --release --locked -p callgate -p callgate-speech
cargo bench --locked -p callgate-benches --bench compare -- "${@:-all}"
