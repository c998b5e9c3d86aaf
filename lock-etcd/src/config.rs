//! How etcd is reached, and the options of this backend.

use std::fmt;
use std::path::PathBuf;

use lock_core::{LockUrl, Result};

use crate::error::invalid;
use crate::key::prefix_refusal;

const DEFAULT_PORT: u16 = 2379;
const DEFAULT_PREFIX: &str = "distlock";

/// How an etcd cluster is reached, and with which options.
///
/// As a URL: `etcd://user:password@host:port,host:port/prefix?option=value`. Name every member: the
/// client talks to one of them at a time and goes to another when that one is of no more use.
/// Options, beside those of every client:
///
/// | option | | default |
/// |---|---|---|
/// | `tls` | `true` encrypts the connections, with the system's authorities unless `ca` names others | `false` |
/// | `ca` | PEM file with the authorities to trust instead of the system's (TLS) | |
/// | `cert`, `key` | PEM files with this client's certificate and key (TLS) | |
///
/// # Examples
/// ```
/// use lock_etcd::EtcdConfig;
/// let config = EtcdConfig::new([("10.0.0.1", 2379), ("10.0.0.2", 2379), ("10.0.0.3", 2379)])
///     .with_credentials("app", "secret")
///     .with_prefix("orders/locks");
/// assert!(!format!("{config:?}").contains("secret"));
/// ```
#[derive(Clone)]
#[must_use]
pub struct EtcdConfig {
    pub(crate) endpoints: Vec<(String, u16)>,
    pub(crate) credentials: Option<(String, String)>,
    pub(crate) prefix: String,
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

impl EtcdConfig {
    /// The members of a cluster, without credentials, all options at their defaults.
    pub fn new<H: Into<String>>(endpoints: impl IntoIterator<Item = (H, u16)>) -> Self {
        Self {
            endpoints: endpoints
                .into_iter()
                .map(|(host, port)| (host.into(), port))
                .collect(),
            credentials: None,
            prefix: DEFAULT_PREFIX.to_owned(),
            tls: None,
        }
    }

    /// Reads this backend's part of a URL.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](lock_core::ErrorKind::Invalid) for a value that does not read or cannot
    /// work.
    pub fn from_url(url: &mut LockUrl) -> Result<Self> {
        let endpoints = url
            .hosts()
            .iter()
            .map(|server| (server.host.clone(), server.port.unwrap_or(DEFAULT_PORT)));
        let mut config = Self::new(endpoints);
        config.credentials = match (url.username(), url.password()) {
            (Some(user), Some(password)) => Some((user.to_owned(), password.to_owned())),
            (None, None) => None,
            (Some(_), None) => {
                return Err(invalid("connect", "the URL has a user but no password"));
            }
            (None, Some(_)) => {
                return Err(invalid("connect", "the URL has a password but no user"));
            }
        };
        let path = url.path().strip_prefix('/').unwrap_or_default();
        if !path.is_empty() {
            config.prefix = path.to_owned();
        }
        let encrypted = match url.take("tls").as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(other) => {
                return Err(invalid(
                    "connect",
                    format!("tls is true or false, not {other:?}"),
                ));
            }
        };
        let (ca, cert, key) = (url.take("ca"), url.take("cert"), url.take("key"));
        if encrypted {
            config.tls = Some(TlsConfig {
                ca: ca.map(PathBuf::from),
                identity: match (cert, key) {
                    (Some(cert), Some(key)) => Some((cert.into(), key.into())),
                    (None, None) => None,
                    _ => return Err(invalid("connect", "cert and key come together")),
                },
            });
        } else if ca.or(cert).or(key).is_some() {
            return Err(invalid("connect", "ca, cert and key need tls=true"));
        }
        config.validate()?;
        Ok(config)
    }

    /// Logs in. Defaults to no login.
    pub fn with_credentials(mut self, user: &str, password: &str) -> Self {
        self.credentials = Some((user.to_owned(), password.to_owned()));
        self
    }

    /// Begins every key with `prefix` and a slash. Behind a slash no part of it may be `l`: there the
    /// prefix before that has its locks. Defaults to `distlock`.
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Encrypts the connections. Defaults to plain TCP.
    pub fn with_tls(mut self, tls: TlsConfig) -> Self {
        self.tls = Some(tls);
        self
    }

    pub(crate) fn validate(&self) -> Result<()> {
        if self.endpoints.is_empty() {
            return Err(invalid(
                "connect",
                "an etcd:// URL names at least one server",
            ));
        }
        if let Some(why) = prefix_refusal(&self.prefix) {
            return Err(invalid("connect", why));
        }
        if cfg!(not(feature = "tls")) && self.tls.is_some() {
            return Err(invalid(
                "connect",
                "this build is without TLS: switch the feature tls of lock-etcd on",
            ));
        }
        Ok(())
    }
}

impl fmt::Debug for EtcdConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdConfig")
            .field("endpoints", &self.endpoints)
            .field("user", &self.credentials.as_ref().map(|(user, _)| user))
            .field("password", &self.credentials.as_ref().map(|_| "…"))
            .field("prefix", &self.prefix)
            .field("tls", &self.tls)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lock_core::ErrorKind;

    fn read(text: &str) -> Result<EtcdConfig> {
        let mut url = LockUrl::parse(text)?;
        let config = EtcdConfig::from_url(&mut url)?;
        url.finish()?;
        Ok(config)
    }

    #[test]
    fn url_names_members_credentials_prefix_and_options() {
        let config =
            read("etcd://app:p%40ss@a:1,[::1]:2,c/team/locks?tls=true&ca=/ca.pem").expect("reads");
        assert_eq!(
            config.endpoints,
            [
                ("a".into(), 1),
                ("::1".into(), 2),
                ("c".into(), DEFAULT_PORT)
            ]
        );
        assert_eq!(config.credentials, Some(("app".into(), "p@ss".into())));
        assert_eq!(config.prefix, "team/locks");
        let tls = config.tls.expect("encrypted");
        assert_eq!(tls.ca, Some(PathBuf::from("/ca.pem")));
        assert_eq!(read("etcd://a").expect("reads").prefix, DEFAULT_PREFIX);
        assert_eq!(read("etcd://a/").expect("reads").prefix, DEFAULT_PREFIX);
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for text in [
            "etcd:///prefix",
            "etcd://user@a",
            "etcd://a/prefix/",
            "etcd://a//prefix",
            "etcd://a?tls=maybe",
            "etcd://a?ca=/ca.pem",
            "etcd://a?tls=true&cert=/c.pem",
            "etcd://a?prefix=x",
        ] {
            let error = read(text).expect_err(text);
            assert_eq!(error.kind(), ErrorKind::Invalid, "{text}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let config = read("etcd://app:hunter2@a").expect("reads");
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
