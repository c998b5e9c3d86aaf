//! How a Redis server is reached, and the options of this backend.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use lock_core::{Error, ErrorKind, LockUrl, Result};

use crate::error::invalid;
use crate::key::prefix_refusal;

const DEFAULT_PORT: u16 = 6379;
const DEFAULT_PREFIX: &str = "distlock";
const DEFAULT_CLAIM: Duration = Duration::from_secs(2);
const DEFAULT_FENCE_RETENTION: Duration = Duration::from_secs(600);
const CLAIM: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(60);
const FENCE_RETENTION: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(30 * 24 * 3600);

/// How a Redis or Valkey server is reached, and with which options.
///
/// As a URL: `redis://user:password@host:port/db?option=value`, with the schemes `redis` and
/// `valkey`, and `rediss` and `valkeys` for TLS. Options, beside those of every client:
///
/// | option | | default |
/// |---|---|---|
/// | `prefix` | first part of every key and channel | `distlock` |
/// | `claim` | lease of a hand-off until the new holder's first renewal, 100 ms to 60 s | `2s` |
/// | `fence_retention` | how long a lock's last token outlives its last hold, 1 s to 30 days | `10m` |
/// | `ca` | PEM file with the authorities to trust instead of the system's (TLS) | |
/// | `cert`, `key` | PEM files with this client's certificate and key (TLS) | |
///
/// `claim` and `fence_retention` are to be the same in all clients of a prefix.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use lock_redis::RedisConfig;
/// let config = RedisConfig::new("127.0.0.1", 6379)
///     .with_credentials(Some("app"), "secret")
///     .with_claim(Duration::from_secs(1));
/// assert!(!format!("{config:?}").contains("secret"));
/// ```
#[derive(Clone)]
#[must_use]
pub struct RedisConfig {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) db: u32,
    pub(crate) prefix: String,
    pub(crate) claim: Duration,
    pub(crate) fence_retention: Duration,
    pub(crate) tls: Option<TlsConfig>,
}

/// What a TLS connection trusts and shows.
///
/// Certificates are always checked, the host name included; there is no option against it.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct TlsConfig {
    pub(crate) ca: Option<PathBuf>,
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
}

impl TlsConfig {
    /// Trusts what the system trusts, and shows nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts the authorities in this PEM file and no others. Defaults to the system's.
    pub fn with_ca(mut self, pem: impl Into<PathBuf>) -> Self {
        self.ca = Some(pem.into());
        self
    }

    /// Shows the server this certificate. Defaults to none.
    pub fn with_identity(
        mut self,
        cert_pem: impl Into<PathBuf>,
        key_pem: impl Into<PathBuf>,
    ) -> Self {
        self.identity = Some((cert_pem.into(), key_pem.into()));
        self
    }
}

impl RedisConfig {
    /// A server without credentials, database 0, all options at their defaults.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
            username: None,
            password: None,
            db: 0,
            prefix: DEFAULT_PREFIX.to_owned(),
            claim: DEFAULT_CLAIM,
            fence_retention: DEFAULT_FENCE_RETENTION,
            tls: None,
        }
    }

    /// Reads this backend's part of a URL.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a value that does not read or cannot work.
    pub fn from_url(url: &mut LockUrl) -> Result<Self> {
        let [server] = url.hosts() else {
            return Err(invalid(
                "connect",
                format!(
                    "a {}:// URL names exactly one server, this one names {}",
                    url.scheme(),
                    url.hosts().len()
                ),
            ));
        };
        let mut config = Self::new(server.host.clone(), server.port.unwrap_or(DEFAULT_PORT));
        config.username = url.username().map(str::to_owned);
        config.password = url.password().map(str::to_owned);
        if config.username.is_some() && config.password.is_none() {
            return Err(invalid("connect", "the URL has a user but no password"));
        }
        let db = url.path().trim_start_matches('/');
        if !db.is_empty() {
            config.db = db.parse().map_err(|_| {
                invalid(
                    "connect",
                    format!("the path of a Redis URL is a database number, not {db:?}"),
                )
            })?;
        }
        if let Some(prefix) = url.take("prefix") {
            config.prefix = prefix;
        }
        if let Some(claim) = url.take_duration("claim")? {
            config.claim = claim;
        }
        if let Some(retention) = url.take_duration("fence_retention")? {
            config.fence_retention = retention;
        }
        let (ca, cert, key) = (url.take("ca"), url.take("cert"), url.take("key"));
        if matches!(url.scheme(), "rediss" | "valkeys") {
            config.tls = Some(TlsConfig {
                ca: ca.map(PathBuf::from),
                identity: match (cert, key) {
                    (Some(cert), Some(key)) => Some((cert.into(), key.into())),
                    (None, None) => None,
                    _ => return Err(invalid("connect", "cert and key come together")),
                },
            });
        } else if ca.or(cert).or(key).is_some() {
            return Err(invalid(
                "connect",
                format!("ca, cert and key need TLS: {}s://", url.scheme()),
            ));
        }
        config.validate()?;
        Ok(config)
    }

    /// Logs in. Without a user, as the default one. Defaults to no login.
    pub fn with_credentials(mut self, username: Option<&str>, password: &str) -> Self {
        self.username = username.map(str::to_owned);
        self.password = Some(password.to_owned());
        self
    }

    /// Uses this database. Defaults to 0.
    pub fn with_db(mut self, db: u32) -> Self {
        self.db = db;
        self
    }

    /// Begins every key and channel with `prefix`. Defaults to `distlock`.
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets how long a hand-off may go unheard until the next waiter is served. Defaults to 2 s.
    pub fn with_claim(mut self, claim: Duration) -> Self {
        self.claim = claim;
        self
    }

    /// Sets how long a lock's last token is remembered after its last hold. Defaults to 10 min.
    pub fn with_fence_retention(mut self, retention: Duration) -> Self {
        self.fence_retention = retention;
        self
    }

    /// Encrypts the connection. Defaults to plain TCP.
    pub fn with_tls(mut self, tls: TlsConfig) -> Self {
        self.tls = Some(tls);
        self
    }

    pub(crate) fn validate(&self) -> Result<()> {
        if let Some(why) = prefix_refusal(&self.prefix) {
            return Err(invalid("connect", why));
        }
        for (option, value, range) in [
            ("claim", self.claim, CLAIM),
            ("fence_retention", self.fence_retention, FENCE_RETENTION),
        ] {
            if !range.contains(&value) || value.subsec_nanos() % 1_000_000 != 0 {
                return Err(invalid(
                    "connect",
                    format!(
                        "{option} is {value:?}; it has to be whole milliseconds from {:?} to {:?}",
                        range.start(),
                        range.end()
                    ),
                ));
            }
        }
        if self.tls.is_some() && cfg!(not(feature = "tls")) {
            return Err(Error::new(ErrorKind::Unsupported, "connect")
                .with_detail("TLS comes with the Cargo feature \"tls\" of lock-redis"));
        }
        Ok(())
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "…"))
            .field("db", &self.db)
            .field("prefix", &self.prefix)
            .field("claim", &self.claim)
            .field("fence_retention", &self.fence_retention)
            .field("tls", &self.tls)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<RedisConfig> {
        let mut url = LockUrl::parse(text)?;
        let config = RedisConfig::from_url(&mut url)?;
        url.finish()?;
        Ok(config)
    }

    #[test]
    fn everything_a_url_can_say_is_read() {
        let config = read(
            "valkeys://app:p%40ss@[::1]:7000/3?prefix=shop&claim=1s&fence_retention=1m&ca=/ca.pem&cert=/c.pem&key=/k.pem",
        )
        .expect("reads");
        assert_eq!(
            (config.host.as_str(), config.port, config.db),
            ("::1", 7000, 3)
        );
        assert_eq!(config.username.as_deref(), Some("app"));
        assert_eq!(config.password.as_deref(), Some("p@ss"));
        assert_eq!(config.prefix, "shop");
        assert_eq!(config.claim, Duration::from_secs(1));
        assert_eq!(config.fence_retention, Duration::from_secs(60));
        let tls = config.tls.clone().expect("TLS");
        assert_eq!(tls.ca, Some("/ca.pem".into()));
        assert_eq!(tls.identity, Some(("/c.pem".into(), "/k.pem".into())));
        assert!(!format!("{config:?}").contains("p@ss"));
    }

    #[test]
    fn least_url_has_the_defaults() {
        let config = read("redis://localhost").expect("reads");
        assert_eq!((config.port, config.db), (DEFAULT_PORT, 0));
        assert_eq!(config.prefix, DEFAULT_PREFIX);
        assert!(config.tls.is_none() && config.password.is_none());
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for bad in [
            "redis://",
            "redis://a,b",
            "redis://a/x",
            "redis://a/-1",
            "redis://user@a",
            "redis://a/?prefix=a%7Bb",
            "redis://a/?prefix=",
            "redis://a/?claim=0s",
            "redis://a/?claim=99ms",
            "redis://a/?claim=1500us",
            "redis://a/?claim=soon",
            "redis://a/?fence_retention=1ms",
            "redis://a/?ca=/ca.pem",
            "rediss://a/?cert=/c.pem",
            "redis://a/?insecure=1",
        ] {
            let error = read(bad).expect_err(bad);
            assert_eq!(error.kind(), ErrorKind::Invalid, "{bad}: {error}");
        }
    }
}
