//! From a URL to a client.

use std::time::Duration;

use distlock::{ClientOptions, Connect, LockUrl, Locks};

use crate::exit::Failure;

/// The locks of this user on this host, in a directory under `XDG_STATE_HOME`.
pub(crate) const DEFAULT_URL: &str = "file://";

/// What clients have for a TTL when nobody says anything.
const DEFAULT_TTL: Duration = Duration::from_secs(10);

/// Connects to the backend that `url` names; other clients see `label` as the owner of its locks
/// unless the URL has a label of its own.
pub(crate) async fn connect(url: &str, label: &str) -> Result<Locks, Failure> {
    let (connect, options) = read(url, label)?;
    Ok(Locks::open(connect, options).await?)
}

/// What `url` says, without connecting to anything.
pub(crate) fn read(url: &str, label: &str) -> Result<(Box<dyn Connect>, ClientOptions), Failure> {
    let (connect, options) = distlock::registry().read(url)?;
    let labelled = LockUrl::parse(url)?.take("label").is_some();
    let options = match labelled {
        true => options,
        false => options.with_label(label),
    };
    Ok((connect, options))
}

/// The TTL of locks for which the command line names none.
pub(crate) fn default_ttl(url: &str) -> Result<Duration, Failure> {
    let named = LockUrl::parse(url)?.take_duration("ttl")?;
    Ok(named.unwrap_or(DEFAULT_TTL))
}

/// A runtime for the command line's own work; clients have their own.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::system("cannot start", &error))
}

/// Does `work` with a client of its own, for the commands that look and leave.
pub(crate) fn with_locks<T>(
    url: &str,
    work: impl AsyncFnOnce(Locks) -> Result<T, Failure>,
) -> Result<T, Failure> {
    runtime()?.block_on(async {
        let locks = connect(url, env!("CARGO_PKG_NAME")).await?;
        let done = work(locks.clone()).await;
        // Nothing is held, so there is nothing to wait for.
        let _ = locks.shutdown(Duration::ZERO).await;
        done
    })
}
