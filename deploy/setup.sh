#!/usr/bin/env bash
# Installs what building, running (`run`) and testing (`test`) need, where it is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

need_rust="1.95"
if ! { command -v cargo && command -v rustc; } >/dev/null; then
  echo "callgate needs Rust $need_rust or newer: install it with rustup, then run this again." >&2
  exit 1
fi
have_rust=$(rustc --version | awk '{print $2}')
if [ "$(printf '%s\n%s\n' "$need_rust" "$have_rust" | sort -V | head -1)" != "$need_rust" ]; then
  echo "callgate needs Rust $need_rust or newer; this is $have_rust: run 'rustup update stable'." >&2
  exit 1
fi

build=(gcc g++ make cmake pkg-config libpocketsphinx-dev libsphinxbase-dev flite1-dev)
run=(pocketsphinx-en-us)
test=(python3 python3-venv sip-tester baresip-core stunnel4 openssl tshark sqlite3 jq flite pocketsphinx asterisk-core-sounds-en-wav asterisk-core-sounds-en-g722 chromium firefox-esr pebble coturn iproute2)

packages=("${build[@]}" "${run[@]}")
[ "${1:-run}" = test ] && packages+=("${test[@]}")
# Whoever has another Node keeps it.
if [ "${1:-run}" = test ] && ! { command -v node && command -v npm; } >/dev/null; then
  packages+=(nodejs npm)
fi

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -ne 0 ]; then
  echo "Installing: ${missing[*]}"
  sudo=()
  [ "$(id -u)" -eq 0 ] || sudo=(sudo)
  export DEBIAN_FRONTEND=noninteractive
  "${sudo[@]}" apt-get update -qq
  "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

# Debian's OpenSSL is too old to know post-quantum key exchange; the wheels of PyPI bring a newer one.
openssl=target/peers/openssl
if [ "${1:-run}" = test ] && ! "$openssl/bin/python" -c 'import OpenSSL' 2>/dev/null; then
  echo "Installing: pyOpenSSL into $openssl"
  /usr/bin/python3 -m venv "$openssl"
  "$openssl/bin/pip" install --quiet --disable-pip-version-check pyOpenSSL==26.4.0 cryptography==50.0.2
fi

# SIP.js, JsSIP and what drives Chromium (Firefox needs nothing more); nothing of them is run at installation.
browser=tests/browser
if [ "${1:-run}" = test ] && ! cmp -s "$browser/package-lock.json" "$browser/node_modules/.lock"; then
  echo "Installing: the packages of $browser"
  npm --prefix "$browser" ci --ignore-scripts --silent
  cp "$browser/package-lock.json" "$browser/node_modules/.lock"
fi
