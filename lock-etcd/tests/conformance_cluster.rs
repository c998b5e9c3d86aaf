//! The conformance suite on an etcd of three members.

mod suite;

use suite::EtcdHarness;

lock_conformance::main!(EtcdHarness::new(3));
