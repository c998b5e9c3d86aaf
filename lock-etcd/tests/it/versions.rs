//! What matters most, on etcd 3.5 as well: everything else here runs on Debian's 3.4.

use lock_conformance::fault::{Protocol, Proxy};
use lock_conformance::servers::{EtcdServer, EtcdVersion};
use lock_core::{ErrorKind, Lease, Renewal};

use crate::fixture::*;

fn newer() -> EtcdServer {
    EtcdServer::builder().version(EtcdVersion::V3_5).start()
}

#[tokio::test]
async fn cycle_is_two_quorum_writes() {
    let server = newer();
    let one = client(&server).await;
    let warm = claim("a");
    hold(&one, &warm).await;
    assert!(soon(one.release(&warm)).await.expect("released"));
    let writes = counted(server.writes());
    for _ in 0..20 {
        let claim = claim("a");
        hold(&one, &claim).await;
        assert!(soon(one.release(&claim)).await.expect("released"));
    }
    assert_eq!(counted(server.writes()) - writes, 40);
    soon(one.close()).await.expect("closed");
    assert_eq!(counted(server.keys()), Vec::<String>::new());
    assert_eq!(counted(server.leases()), Vec::<i64>::new());
}

#[tokio::test]
async fn waiters_are_handed_the_lock_in_order_and_a_dead_holder_is_replaced() {
    let server = newer();
    let (one, two, three) = (
        client(&server).await,
        client(&server).await,
        client(&server).await,
    );
    let held = claim_for("a", ms(1000)).with_lease(Lease::Fixed);
    let (first, second, next) = (claim("a"), claim("a"), claim("a"));
    let old = hold(&one, &held).await;
    let first_waits = queue(&two, &first).await;
    let second_waits = queue(&three, &second).await;
    let new = granted(first_waits).await;
    assert!(new.token() > old.token());
    assert!(matches!(renew(&two, &new).await, Renewal::Extended(_)));
    assert_eq!(renew(&one, &old).await, Renewal::Gone);
    soon(two.pass(&first, &next)).await.expect("passed");
    granted(second_waits).await;
    assert!(soon(three.release(&second)).await.expect("released"));
    granted(acquire(&two, &next)).await;
}

#[tokio::test]
async fn late_copy_does_not_win() {
    let server = newer();
    let proxy = Proxy::start_with(server.addr(), Protocol::Http2);
    let one = hasty(through(&proxy), ms(1000)).await;
    let two = client(&server).await;
    let (warm, lost) = (claim("warm"), claim("a"));
    hold(&one, &warm).await;
    let key = keys_of("a").into_bytes();
    proxy.hold_requests_matching(move |request| request.windows(key.len()).any(|part| part == key));
    let accepted = proxy.stats().accepted;
    let error = soon(one.try_acquire(&lost)).await.expect_err("held back");
    assert_eq!(error.kind(), ErrorKind::Indeterminate, "{error}");
    proxy
        .until(SOON, |stats| stats.accepted > accepted && stats.open == 1)
        .await;
    assert!(!eventually(|| async { one.release(&lost).await.ok() }).await);
    assert!(proxy.deliver_held() > 0);
    proxy.until(SOON, |stats| stats.late_replies > 0).await;
    assert!(is_free(&two, "a").await);
    assert!(soon(one.release(&warm)).await.expect("as it was"));
}

#[tokio::test]
async fn least_role_is_enough() {
    let server = newer();
    counted(server.add_user("app", "correct horse", "distlock/"));
    counted(server.authenticate("root's own"));
    let app = || config(&server).with_credentials("app", "correct horse");
    let (one, two) = (connect(app()).await, connect(app()).await);
    let (held, waiting) = (claim("a"), claim("a"));
    let grant = hold(&one, &held).await;
    let task = queue(&two, &waiting).await;
    assert!(matches!(renew(&one, &grant).await, Renewal::Extended(_)));
    assert!(soon(one.release(&held)).await.expect("released"));
    granted(task).await;
    soon(look(&one, "a")).await;
}
