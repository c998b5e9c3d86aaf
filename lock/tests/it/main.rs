//! The facade: URLs in, clients or clear refusals out.

use distlock::ErrorKind;

async fn refusal(url: &str) -> (ErrorKind, String) {
    let error = distlock::connect(url).await.expect_err("refused");
    (error.kind(), error.to_string())
}

#[cfg(feature = "memory")]
#[tokio::test]
async fn unknown_scheme_names_the_ones_there_are() {
    let (kind, text) = refusal("postgres://localhost/").await;
    assert_eq!(kind, ErrorKind::Invalid);
    assert!(
        text.contains("postgres://") && text.contains("memory://"),
        "{text}"
    );
}

#[cfg(not(feature = "redis"))]
#[tokio::test]
async fn scheme_that_was_left_out_names_its_feature() {
    for scheme in ["redis", "rediss", "valkey", "valkeys"] {
        let (kind, text) = refusal(&format!("{scheme}://localhost/")).await;
        assert_eq!(kind, ErrorKind::Unsupported);
        assert!(text.contains("feature \"redis\""), "{text}");
    }
}

#[cfg(not(feature = "memory"))]
#[tokio::test]
async fn memory_that_was_left_out_names_its_feature() {
    let (kind, text) = refusal("memory://").await;
    assert_eq!(kind, ErrorKind::Unsupported);
    assert!(text.contains("feature \"memory\""), "{text}");
}

#[tokio::test]
async fn malformed_urls_and_unknown_options_are_refused_before_anything_is_connected() {
    for url in [
        "",
        "memory",
        "memory:",
        "://",
        "redis://host:port/",
        "memory://#x",
    ] {
        let (kind, text) = refusal(url).await;
        assert_eq!(kind, ErrorKind::Invalid, "{url}: {text}");
    }
}

#[cfg(feature = "memory")]
#[tokio::test]
async fn options_of_a_url_are_checked() {
    for (url, names) in [
        ("memory://?prefixx=1", "prefixx"),
        ("memory://?ttl=soon", "ttl"),
        ("memory://?ttl=0s", "ttl"),
        ("memory://?op_timeout=0ms", "op_timeout"),
        ("memory://?fence_base=-1", "fence_base"),
        ("memory://?ttl=1s&ttl=2s", "twice"),
    ] {
        let (kind, text) = refusal(url).await;
        assert_eq!(kind, ErrorKind::Invalid, "{url}");
        assert!(text.contains(names), "{url}: {text}");
    }
}

#[cfg(feature = "memory")]
#[tokio::test]
async fn fence_base_lifts_every_token() {
    let locks = distlock::connect("memory://?fence_base=1000000")
        .await
        .expect("connects");
    let guard = locks.mutex("a").acquire().await.expect("free");
    assert!(guard.token().get() > 1_000_000);
}
