//! The conformance suite on one ZooKeeper server.

mod support;

lock_conformance::main!(support::ZkHarness::single());
