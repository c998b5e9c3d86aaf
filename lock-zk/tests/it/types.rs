//! What holds of the types by themselves.

use lock_core::{Backend, Connect, Registry};
use lock_zk::{Fence, NodeAcl, ZkBackend, ZkConfig};

#[test]
fn types_can_be_shared_between_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<ZkBackend>();
    shared::<ZkConfig>();
    shared::<Fence>();
    shared::<NodeAcl>();
}

#[test]
fn backend_and_configuration_are_objects() {
    fn backend(_: Option<&dyn Backend>, _: Option<&dyn Connect>) {}
    backend(
        None::<&ZkBackend>.map(|it| it as _),
        None::<&ZkConfig>.map(|it| it as _),
    );
}

#[test]
fn scheme_is_registered_and_passwords_are_not_shown() {
    let registry = lock_zk::register(Registry::new());
    assert_eq!(registry.schemes().collect::<Vec<_>>(), ["zk"]);
    let (connect, _) = registry
        .read("zk://u:hunter2@a:1,b:2/x?op_timeout=1s")
        .expect("reads");
    assert!(!format!("{connect:?}").contains("hunter2"));
    assert!(registry.read("zk://a/?prefix=x").is_err());
}
