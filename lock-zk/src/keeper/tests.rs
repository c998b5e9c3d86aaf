//! Strays, which no request of the public interface leaves behind: they are made by hand here.

use lock_conformance::servers::ZooKeeperServer;
use lock_core::{Claim, Context, Identity, LockName, Nonce};
use tokio::sync::mpsc;

use super::*;
use crate::config::ZkConfig;
use crate::name::stem;

/// Makes a node in the session of `client`, as a late copy of a request would.
async fn ghost(client: &Client, session: &Session, until: BootInstant) -> String {
    let handle = session.handle(until).await.expect("connected");
    let path = format!("{LOCKS}/n/{}", stem(Nonce::new()));
    let options = zk::CreateMode::EphemeralSequential.with_acls(client.acls());
    let (_, sequence) = handle.create(&path, &[], &options).await.expect("made");
    format!("{path}{sequence}")
}

#[tokio::test]
async fn nodes_that_no_claim_asked_for_are_removed_and_the_others_stay() {
    let server = ZooKeeperServer::start();
    let config = ZkConfig::new("127.0.0.1", server.port());
    let mut context = Context::new(Identity::of_this_process("strays"));
    context.op_timeout = Duration::from_secs(20);
    let until = context.clock.now() + context.op_timeout;
    let open = async || {
        let session = connect::open(&config, &context, until)
            .await
            .expect("opens");
        let (events, _) = mpsc::unbounded_channel();
        Arc::new(Client::new(
            config.clone(),
            context.clone(),
            session,
            events,
        ))
    };
    let (client, other) = (open().await, open().await);
    let session = Arc::clone(&client.session.borrow());
    let name = LockName::new("n").expect("a good name");
    let claim = Claim::new(name, context.identity.clone(), Duration::from_secs(60));
    let joined = client
        .join("acquire", &session, &claim, None, until)
        .await
        .expect("joined");
    let kept = joined.node.place().expect("there").path.to_string();
    let theirs = Arc::clone(&other.session.borrow());
    let foreign = ghost(&other, &theirs, until).await;
    let strays = [
        ghost(&client, &session, until).await,
        ghost(&client, &session, until).await,
    ];
    verify(&client, &session, false, until)
        .await
        .expect("looked");
    let handle = session.handle(until).await.expect("connected");
    for stray in &strays {
        assert_eq!(handle.check_stat(stray).await, Ok(None));
    }
    for stays in [&kept, &foreign] {
        assert!(matches!(handle.check_stat(stays).await, Ok(Some(_))));
    }
    assert!(client.give_up(claim.nonce, until).await.is_ok());
    assert_eq!(handle.check_stat(&kept).await, Ok(None));
    assert_eq!(client.book.len(), 0);
}
