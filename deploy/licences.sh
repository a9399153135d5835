#!/usr/bin/env bash
# Licences, sources and banned packages of everything that is built, by the rules of deny.toml.
#
# Two readers of the same file. The tests of src/sim/tidy/licences.rs always run, need nothing but
# cargo, and look at what is built on this machine. cargo-deny looks at every platform, and runs
# only where somebody has installed it (`cargo install --locked cargo-deny`, some minutes): the
# gate does not depend on it. Its advisory database needs the network, so it is not asked for that.
set -euo pipefail
cd "$(dirname "$0")/.."

if command -v cargo-nextest >/dev/null; then
  cargo nextest run --locked -p callgate-sim -E 'test(tidy::licences)' --cargo-quiet --no-fail-fast
else
  cargo test --locked --quiet -p callgate-sim tidy::licences
fi

if command -v cargo-deny >/dev/null; then
  # The whole lock file must be here for it: what is built on this machine is not all of it.
  cargo fetch --locked --quiet
  cargo deny --offline check bans licenses sources
else
  echo "licences: cargo-deny is not installed; the tests above have checked deny.toml's rules."
fi
