#!/usr/bin/env bash
# What a newcomer does: a copy of the tree as git has it, `make run`, and the commands that it prints
# pasted into another shell. `tests/first_run.sh [TARGET]`: with an existing target folder of cargo
# it takes a minute or two, without one as long as a release build of everything.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
copy=$(mktemp -d)
elsewhere=$(mktemp -d)
running=
leave() {
  [ -z "$running" ] || kill -TERM -- "-$running" 2>/dev/null || true
  [ -z "$running" ] || wait "$running" 2>/dev/null || true
  rm -rf "$copy" "$elsewhere"
}
trap leave EXIT

git -C "$root" ls-files -z --cached --others --exclude-standard \
  | tar -C "$root" --null --ignore-failed-read -T - -cf - 2>/dev/null | tar -C "$copy" -xf -
[ $# -eq 0 ] || ln -s "$(realpath "$1")" "$copy/target"

# Any free ports, since an edge may run here already; all else is as `make run` has it.
any='["127.0.0.1:0"]'
cd "$copy"
env -u CARGO_TARGET_DIR CALLGATE_LISTEN_TLS="$any" CALLGATE_LISTEN_HTTPS="$any" \
  CALLGATE_LISTEN_HTTP="$any" CALLGATE_LISTEN_METRICS=127.0.0.1:0 CALLGATE_BROWSERS_ICE_TCP= \
  setsid make run >"$elsewhere/run.out" 2>"$elsewhere/run.err" &
running=$!
until grep -q '^Afterwards:' "$elsewhere/run.out"; do
  if ! kill -0 "$running" 2>/dev/null || [ "$SECONDS" -gt 3000 ]; then
    echo "make run does not serve:" >&2
    tail -20 "$elsewhere/run.out" "$elsewhere/run.err" >&2
    exit 1
  fi
  sleep 1
done
echo "serves after $SECONDS s"

# The indented lines below a title, to the next line that is not.
printed() { awk -v title="$1" '$0 == title { on = 1; next } on && !/^  / { exit } on' "$elsewhere/run.out"; }
mkdir "$elsewhere/shell"
cd "$elsewhere/shell"
first=$(printed 'First call, from another terminal:')
echo "$first"
timeout 120 bash -ec "$first"
[ "$(stat -c %s "$copy/heard.wav")" -gt 100000 ] || { echo "nothing was heard" >&2; exit 1; }
after=$(echo "$first" | head -1; printed 'Afterwards:')
bash -ec "$after" | tee "$elsewhere/list.out"
grep -q call.agent_hung_up "$elsewhere/list.out" || { echo "the call is not listed" >&2; exit 1; }
echo "first call after $SECONDS s"
