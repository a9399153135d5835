#!/usr/bin/env bash
# Fuzzes every target for N seconds: fuzz/run.sh [seconds] [target...]. Any crash, hang or memory
# over the limit fails; the input is left in fuzz/artifacts. Put it into
# fuzz/corpus/<target> once it is understood: the ordinary tests replay that folder.
#
# It needs neither cargo-fuzz nor a nightly compiler: coverage comes from LLVM's sancov-module
# pass, which the stable compiler has too. New finds of a run stay in fuzz/target, so that the
# tracked corpus changes only by hand.
set -euo pipefail
cd "$(dirname "$0")"

seconds=${1:-10}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(sip_message sip_framing sdp rtp srtp_differential dtls_guard policy_file websocket_sip stun)

triple=$(rustc -vV | sed -n 's/^host: //p')
export CARGO_TARGET_DIR=$PWD/target CARGO_TERM_COLOR=never CARGO_INCREMENTAL=0
# Overflow checks and debug assertions stay on (profile dev), and the code is optimised all the same.
export CARGO_PROFILE_DEV_OPT_LEVEL=2 CARGO_PROFILE_DEV_DEBUG=line-tables-only
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module \
  -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
  -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares"

began=$SECONDS
# --target keeps the flags away from build scripts and procedural macros.
cargo build --quiet --locked -p callgate-fuzz --features libfuzzer --bins --target "$triple"
echo "fuzz: built in $((SECONDS - began)) s"

# Sizes above the limits of base/limit.rs reach the refusals; far above them nothing new happens.
max_len() {
  case $1 in
    sip_message | sip_framing) echo 70000 ;;
    sdp) echo 34000 ;;
    *) echo 16384 ;;
  esac
}

failed=()
for target in "${targets[@]}"; do
  found=target/found/$target artifacts=artifacts/$target log=target/$target.log
  mkdir -p "$found" "$artifacts"
  if "target/$triple/debug/$target" "$found" "corpus/$target" \
    -max_total_time="$seconds" -max_len="$(max_len "$target")" -timeout=10 \
    -rss_limit_mb=1024 -print_final_stats=1 \
    -artifact_prefix="$artifacts/" >"$log" 2>&1; then
    coverage=$(grep -oE 'cov: [0-9]+ ft: [0-9]+ corp: [0-9]+' "$log" | tail -1)
    rate=$(sed -n 's/^stat::average_exec_per_sec: *//p' "$log")
    memory=$(sed -n 's/^stat::peak_rss_mb: *//p' "$log")
    printf 'fuzz: %-12s %7s executions/s, %s, %s MB\n' "$target" "$rate" "$coverage" "$memory"
  else
    failed+=("$target")
    tail -40 "$log" >&2
  fi
done

if [ ${#failed[@]} -gt 0 ]; then
  echo "fuzz: FAILED: ${failed[*]}; the inputs are in fuzz/artifacts" >&2
  exit 1
fi
