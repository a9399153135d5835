# The two commands: `make run` installs what is missing, builds and serves; `make test` does all
# set-up and runs every test. Everything else is for those who know what they want.
SHELL := /bin/bash
.PHONY: run test test-interop setup setup-test build fmt lint doc licences fuzz-smoke compare

run: setup
	cargo build --release --locked -p callgate -p callgate-speech
	./target/release/callgate serve

test: setup-test
	deploy/test.sh

test-interop: setup-test
	tests/run.sh

setup:
	@deploy/setup.sh run

setup-test:
	@deploy/setup.sh test

build: setup
	cargo build --release --locked -p callgate -p callgate-speech

fmt:
	cargo fmt --all --check

lint:
	cargo clippy --workspace --all-targets --locked -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

licences:
	deploy/licences.sh

fuzz-smoke:
	fuzz/run.sh

# Against rtpengine and Kamailio, about half an hour on a machine with nothing else to do.
compare: setup
	deploy/compare.sh
