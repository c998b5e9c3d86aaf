//! How a ZooKeeper ensemble is reached, and the options of this backend.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use lock_core::{Error, ErrorKind, HostPort, LockUrl, Result};

use crate::error::invalid;

const DEFAULT_PORT: u16 = 2181;
const DEFAULT_CHROOT: &str = "/distlock";
const DEFAULT_SESSION_TIMEOUT: Duration = Duration::from_secs(10);
const SESSION_TIMEOUT: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(200)..=Duration::from_secs(3600);
/// A session that does not see some ticks pass is never known to be alive.
const TICKS_IN_A_SESSION: u32 = 3;

/// Who may touch the nodes that a client makes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum NodeAcl {
    /// Whoever logs in with the same credentials.
    Creator,
    /// Everybody who reaches the ensemble.
    Open,
}

/// How a ZooKeeper ensemble is reached, and with which options.
///
/// As a URL: `zk://user:password@host:port,host:port/chroot?option=value`. The path is where all nodes
/// of this backend are, `/distlock` when there is none; it is made when it is absent. Options, beside
/// those of every client:
///
/// | option | | default |
/// |---|---|---|
/// | `session_timeout` | how long a client that is silent keeps its locks, 200 ms to 1 h; the server has the last word | `10s` |
/// | `tick` | at least the servers' `tickTime`: how much later another heartbeat has to be answered for one to count; at most a third of the session timeout | a quarter of the session timeout |
/// | `acl` | `creator` or `open`: who may touch the nodes | `creator` with credentials, else `open` |
/// | `tls` | `true` or `false` | `false` |
/// | `ca` | PEM file with the authorities to trust (needed for TLS) | |
/// | `cert`, `key` | PEM files with this client's certificate and key (TLS) | |
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use lock_zk::ZkConfig;
/// let config = ZkConfig::new("127.0.0.1", 2181)
///     .with_server("127.0.0.1", 2182)
///     .with_credentials("app", "secret")
///     .with_session_timeout(Duration::from_secs(6));
/// assert!(!format!("{config:?}").contains("secret"));
/// ```
#[derive(Clone)]
#[must_use]
pub struct ZkConfig {
    pub(crate) servers: Vec<(String, u16)>,
    pub(crate) credentials: Option<(String, String)>,
    pub(crate) chroot: String,
    pub(crate) session_timeout: Duration,
    pub(crate) tick: Option<Duration>,
    pub(crate) acl: Option<NodeAcl>,
    pub(crate) tls: Option<TlsConfig>,
}

/// What a TLS connection trusts and shows.
///
/// Certificates are always checked, the host name included; there is no option against it.
#[derive(Clone, Debug)]
#[must_use]
#[cfg_attr(
    not(feature = "tls"),
    expect(
        dead_code,
        reason = "read where there is TLS; refused where there is not"
    )
)]
pub struct TlsConfig {
    pub(crate) ca: PathBuf,
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
}

impl TlsConfig {
    /// Trusts the authorities in this PEM file and no others, and shows nothing.
    pub fn new(ca_pem: impl Into<PathBuf>) -> Self {
        Self {
            ca: ca_pem.into(),
            identity: None,
        }
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

impl ZkConfig {
    /// One server, without credentials, all options at their defaults.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            servers: vec![(host.into(), port)],
            credentials: None,
            chroot: DEFAULT_CHROOT.to_owned(),
            session_timeout: DEFAULT_SESSION_TIMEOUT,
            tick: None,
            acl: None,
            tls: None,
        }
    }

    /// Reads this backend's part of a URL.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a value that does not read or cannot work.
    pub fn from_url(url: &mut LockUrl) -> Result<Self> {
        let mut servers = url
            .hosts()
            .iter()
            .map(|HostPort { host, port }| (host.clone(), port.unwrap_or(DEFAULT_PORT)));
        let Some((host, port)) = servers.next() else {
            return Err(invalid("connect", "a zk:// URL names at least one server"));
        };
        let mut config = Self::new(host, port);
        config.servers.extend(servers);
        config.credentials = match (url.username(), url.password()) {
            (None, None) => None,
            (Some(user), Some(password)) => Some((user.to_owned(), password.to_owned())),
            _ => {
                return Err(invalid("connect", "a user and a password come together"));
            }
        };
        if !matches!(url.path(), "" | "/") {
            config.chroot = url.path().to_owned();
        }
        if let Some(timeout) = url.take_duration("session_timeout")? {
            config.session_timeout = timeout;
        }
        config.tick = url.take_duration("tick")?;
        config.acl = match url.take("acl").as_deref() {
            None => None,
            Some("creator") => Some(NodeAcl::Creator),
            Some("open") => Some(NodeAcl::Open),
            Some(other) => {
                return Err(invalid(
                    "connect",
                    format!("acl is {other:?}; it has to be creator or open"),
                ));
            }
        };
        let (ca, cert, key) = (url.take("ca"), url.take("cert"), url.take("key"));
        match url.take("tls").as_deref() {
            Some("true") => {
                let Some(ca) = ca else {
                    return Err(invalid(
                        "connect",
                        "tls=true needs ca, a PEM file with the authorities to trust",
                    ));
                };
                let tls = TlsConfig::new(ca);
                config.tls = Some(match (cert, key) {
                    (Some(cert), Some(key)) => tls.with_identity(cert, key),
                    (None, None) => tls,
                    _ => return Err(invalid("connect", "cert and key come together")),
                });
            }
            None | Some("false") if ca.is_none() && cert.is_none() && key.is_none() => {}
            None | Some("false") => {
                return Err(invalid("connect", "ca, cert and key need tls=true"));
            }
            Some(other) => {
                return Err(invalid(
                    "connect",
                    format!("tls is {other:?}; it has to be true or false"),
                ));
            }
        }
        config.validate()?;
        Ok(config)
    }

    /// Adds another server of the same ensemble.
    pub fn with_server(mut self, host: impl Into<String>, port: u16) -> Self {
        self.servers.push((host.into(), port));
        self
    }

    /// Logs in by digest authentication. Defaults to no login.
    pub fn with_credentials(
        mut self,
        user: impl Into<String>,
        password: impl Into<String>,
    ) -> Self {
        self.credentials = Some((user.into(), password.into()));
        self
    }

    /// Puts all nodes below `path`. Defaults to `/distlock`.
    pub fn with_chroot(mut self, path: impl Into<String>) -> Self {
        self.chroot = path.into();
        self
    }

    /// Sets how long a client that is silent keeps its locks; the server may change it. Defaults to 10 s.
    pub fn with_session_timeout(mut self, timeout: Duration) -> Self {
        self.session_timeout = timeout;
        self
    }

    /// Sets how much later another heartbeat has to be answered for one to count: at least the servers'
    /// `tickTime`. Defaults to a quarter of the session timeout.
    pub fn with_tick(mut self, tick: Duration) -> Self {
        self.tick = Some(tick);
        self
    }

    /// Sets who may touch the nodes. Defaults to [`NodeAcl::Creator`] with credentials, else to
    /// [`NodeAcl::Open`].
    pub fn with_acl(mut self, acl: NodeAcl) -> Self {
        self.acl = Some(acl);
        self
    }

    /// Encrypts the connection. Defaults to plain TCP.
    pub fn with_tls(mut self, tls: TlsConfig) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Who may touch the nodes.
    pub(crate) fn node_acl(&self) -> NodeAcl {
        self.acl.unwrap_or(match self.credentials {
            Some(_) => NodeAcl::Creator,
            None => NodeAcl::Open,
        })
    }

    /// The tick of a session with this timeout.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when a session that short is never known to be alive.
    pub(crate) fn tick_of(&self, session_timeout: Duration) -> Result<Duration> {
        let tick = self.tick.unwrap_or(session_timeout / 4);
        if tick.is_zero() || tick * TICKS_IN_A_SESSION > session_timeout {
            return Err(invalid(
                "connect",
                format!(
                    "tick is {tick:?}; with a session timeout of {session_timeout:?} it has to be more than zero and at most a third of that"
                ),
            ));
        }
        Ok(tick)
    }

    pub(crate) fn validate(&self) -> Result<()> {
        if let Some(why) = chroot_refusal(&self.chroot) {
            return Err(invalid(
                "connect",
                format!("the path {:?} {why}", self.chroot),
            ));
        }
        if !SESSION_TIMEOUT.contains(&self.session_timeout)
            || !self
                .session_timeout
                .subsec_nanos()
                .is_multiple_of(1_000_000)
        {
            return Err(invalid(
                "connect",
                format!(
                    "session_timeout is {:?}; it has to be whole milliseconds from {:?} to {:?}",
                    self.session_timeout,
                    SESSION_TIMEOUT.start(),
                    SESSION_TIMEOUT.end()
                ),
            ));
        }
        if let Some((user, _)) = &self.credentials
            && (user.is_empty() || user.contains(':'))
        {
            return Err(invalid("connect", "a user is not empty and has no colon"));
        }
        if self.acl == Some(NodeAcl::Creator) && self.credentials.is_none() {
            return Err(invalid(
                "connect",
                "acl=creator needs a user and a password",
            ));
        }
        if self.tls.is_some() && cfg!(not(feature = "tls")) {
            return Err(Error::new(ErrorKind::Unsupported, "connect")
                .with_detail("TLS comes with the Cargo feature \"tls\" of lock-zk"));
        }
        self.tick_of(self.session_timeout).map(drop)
    }
}

/// Why nodes cannot be below `path`, if they cannot.
fn chroot_refusal(path: &str) -> Option<&'static str> {
    let Some(path) = path.strip_prefix('/') else {
        return Some("does not begin with a slash");
    };
    if path.split('/').any(str::is_empty) {
        return Some("has an empty part");
    }
    if path.split('/').any(|part| matches!(part, "." | "..")) {
        return Some("is relative");
    }
    if path.split('/').next() == Some("zookeeper") {
        return Some("is reserved by ZooKeeper");
    }
    let unfit = |c: char| c.is_control() || matches!(u32::from(c), 0xd800..=0xf8ff | 0xfff0..);
    path.chars()
        .any(unfit)
        .then_some("has a character that ZooKeeper refuses")
}

impl fmt::Debug for ZkConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZkConfig")
            .field("servers", &self.servers)
            .field("user", &self.credentials.as_ref().map(|(user, _)| user))
            .field("password", &self.credentials.as_ref().map(|_| "…"))
            .field("chroot", &self.chroot)
            .field("session_timeout", &self.session_timeout)
            .field("tick", &self.tick)
            .field("acl", &self.acl)
            .field("tls", &self.tls)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ZkConfig> {
        let mut url = LockUrl::parse(text)?;
        let config = ZkConfig::from_url(&mut url)?;
        url.finish()?;
        Ok(config)
    }

    #[test]
    fn everything_a_url_can_say_is_read() {
        let config =
            read("zk://app:p%40ss@a:1,[::1]:2,c/shop/locks?session_timeout=6s&tick=2s&acl=open")
                .expect("reads");
        let servers = [("a", 1), ("::1", 2), ("c", DEFAULT_PORT)];
        assert_eq!(
            config.servers,
            servers.map(|(host, port)| (host.to_owned(), port))
        );
        assert_eq!(
            config.credentials,
            Some(("app".to_owned(), "p@ss".to_owned()))
        );
        assert_eq!(config.chroot, "/shop/locks");
        assert_eq!(config.session_timeout, Duration::from_secs(6));
        assert_eq!(config.tick, Some(Duration::from_secs(2)));
        assert_eq!(config.node_acl(), NodeAcl::Open);
        assert!(!format!("{config:?}").contains("p@ss"));
    }

    #[cfg(feature = "tls")]
    #[test]
    fn tls_is_read() {
        let config = read("zk://a/?tls=true&ca=/ca.pem&cert=/c.pem&key=/k.pem").expect("reads");
        let tls = config.tls.expect("TLS");
        assert_eq!(tls.ca, PathBuf::from("/ca.pem"));
        assert_eq!(tls.identity, Some(("/c.pem".into(), "/k.pem".into())));
    }

    #[test]
    fn least_url_has_the_defaults() {
        let config = read("zk://localhost").expect("reads");
        assert_eq!(config.servers, [("localhost".to_owned(), DEFAULT_PORT)]);
        assert_eq!(config.chroot, DEFAULT_CHROOT);
        assert_eq!(config.node_acl(), NodeAcl::Open);
        assert!(config.tls.is_none() && config.credentials.is_none());
        assert_eq!(
            read("zk://u:p@a").expect("reads").node_acl(),
            NodeAcl::Creator
        );
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for bad in [
            "zk://",
            "zk://user@a",
            "zk://a/zookeeper",
            "zk://a/zookeeper/locks",
            "zk://a//x",
            "zk://a/x/",
            "zk://a/%f0%9f%94%92",
            "zk://a/?session_timeout=0s",
            "zk://a/?session_timeout=199ms",
            "zk://a/?session_timeout=1500500us",
            "zk://a/?session_timeout=soon",
            "zk://a/?tick=0s",
            "zk://a/?tick=4s",
            "zk://a/?acl=closed",
            "zk://a/?acl=creator",
            "zk://a/?tls=yes",
            "zk://a/?tls=true",
            "zk://a/?ca=/ca.pem",
            "zk://a/?insecure=1",
        ] {
            let error = read(bad).expect_err(bad);
            assert_eq!(error.kind(), ErrorKind::Invalid, "{bad}: {error}");
        }
    }
}
