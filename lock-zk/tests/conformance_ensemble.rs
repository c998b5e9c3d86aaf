//! The conformance suite on an ensemble of three.

mod support;

lock_conformance::main!(support::ZkHarness::ensemble());
