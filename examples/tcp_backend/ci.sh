#!/bin/sh
# Everything that has to hold before a change of this backend goes in. Reports of the suite are left in
# target/conformance, or where LOCK_TEST_REPORT says.
set -eu
cd "$(dirname "$0")"
export LOCK_TEST_REPORT="${LOCK_TEST_REPORT:-$PWD/target/conformance}"
cargo fmt --check
cargo clippy --all-targets -- -D warnings
cargo test
