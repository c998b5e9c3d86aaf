//! The conformance suite on one etcd.

mod suite;

use suite::EtcdHarness;

lock_conformance::main!(EtcdHarness::new(1));
