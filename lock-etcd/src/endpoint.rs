//! One member of the cluster: how it is dialled.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use etcd_client::{
    Channel, Client, ConnectOptions, KvClient, LeaseClient, ResponseHeader, WatchClient,
};
use lock_core::{Error, ErrorKind, Result};
use tonic::transport::Endpoint;

use crate::config::EtcdConfig;
use crate::error::{self, Failure, invalid};

/// A silent connection is asked for a sign of life after so long, and given up after so much more.
/// etcd's default policy breaks connections that ask more often than every 5 s.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(6), Duration::from_secs(3));

/// One member, and how connections to it are made.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    address: String,
    endpoint: Endpoint,
    options: ConnectOptions,
}

/// What can be asked for on one connection, and what was heard on it. Cheap to clone; what it hands out is
/// not, and is handed out one by one.
#[derive(Clone)]
pub(crate) struct Calls(Arc<Connected>);

struct Connected {
    client: Client,
    /// The latest raft term in an answer that a quorum has confirmed.
    term: AtomicU64,
}

impl Member {
    /// The members that `config` names. Reads the files of its TLS settings, once per client.
    pub(crate) fn of(config: &EtcdConfig) -> Result<Vec<Self>> {
        let mut options = ConnectOptions::new()
            // A member without a leader refuses at once what it could only let time out.
            .with_require_leader(true);
        if let Some((user, password)) = &config.credentials {
            options = options
                .with_user(user, password)
                .with_auto_token_refresh(true);
        }
        let member = |(host, port): &(String, u16)| {
            let address = match host.contains(':') {
                true => format!("[{host}]:{port}"),
                false => format!("{host}:{port}"),
            };
            let scheme = if config.tls.is_some() {
                "https"
            } else {
                "http"
            };
            let endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
                .map_err(|source| {
                    invalid("connect", format!("{address} is no address")).with_source(source)
                })?
                .http2_keep_alive_interval(KEEPALIVE.0)
                .keep_alive_timeout(KEEPALIVE.1)
                // There is always a stream: that of the watch. Idle means that nothing happens on it.
                .keep_alive_while_idle(true);
            Ok(Self {
                endpoint: encrypted(endpoint, host, config)?,
                address,
                options: options.clone(),
            })
        };
        config.endpoints.iter().map(member).collect()
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Connects and logs in. Unbounded: the caller has a deadline.
    pub(crate) async fn dial(&self) -> Result<Calls> {
        let channel = self
            .endpoint
            .connect()
            .await
            .map_err(|source| error::of_connecting(&self.address, source))?;
        let client = Client::from_channel(Channel::Tonic(channel), Some(self.options.clone()))
            .await
            .map_err(|source| Failure::from(source).of_member(&self.address))?;
        Ok(Calls(Arc::new(Connected {
            client,
            term: AtomicU64::new(0),
        })))
    }
}

impl Calls {
    pub(crate) fn kv(&self) -> KvClient {
        self.0.client.kv_client()
    }

    pub(crate) fn lease(&self) -> LeaseClient {
        self.0.client.lease_client()
    }

    pub(crate) fn watch(&self) -> WatchClient {
        self.0.client.watch_client()
    }

    /// Takes note of the term in an answer that a quorum has confirmed.
    pub(crate) fn heard(&self, header: Option<&ResponseHeader>) {
        self.0.term.fetch_max(term_of(header), Ordering::AcqRel);
    }

    /// The latest term that this connection's member has told of, so that it knows of no earlier leader.
    pub(crate) fn term(&self) -> u64 {
        self.0.term.load(Ordering::Acquire)
    }

    /// Logs in once more: the server's list of users has changed since.
    pub(crate) async fn log_in_again(&self) -> Result<(), Failure> {
        self.0.client.refresh_token().await.map_err(Failure::from)
    }
}

/// The raft term in which a member has answered.
pub(crate) fn term_of(header: Option<&ResponseHeader>) -> u64 {
    header.map_or(0, ResponseHeader::raft_term)
}

/// Before there is a connection nothing of a lock was asked for, so nothing is indeterminate.
pub(crate) fn nothing_asked(error: Error) -> Error {
    if error.kind() != ErrorKind::Indeterminate {
        return error;
    }
    Error::new(ErrorKind::Unavailable, "connect")
        .with_detail(error.to_string())
        .with_source(error)
}

#[cfg(feature = "tls")]
fn encrypted(endpoint: Endpoint, host: &str, config: &EtcdConfig) -> Result<Endpoint> {
    use tonic::transport::{Certificate, ClientTlsConfig, Identity};

    let Some(tls) = &config.tls else {
        return Ok(endpoint);
    };
    let read = |file: &std::path::PathBuf| {
        std::fs::read(file).map_err(|source| {
            invalid("connect", format!("{} cannot be read", file.display())).with_source(source)
        })
    };
    let mut settings = ClientTlsConfig::new().domain_name(host);
    settings = match &tls.ca {
        Some(ca) => settings.ca_certificate(Certificate::from_pem(read(ca)?)),
        None => settings.with_native_roots(),
    };
    if let Some((cert, key)) = &tls.identity {
        settings = settings.identity(Identity::from_pem(read(cert)?, read(key)?));
    }
    endpoint
        .tls_config(settings)
        .map_err(|source| invalid("connect", "the TLS settings cannot be used").with_source(source))
}

#[cfg(not(feature = "tls"))]
fn encrypted(endpoint: Endpoint, _: &str, _: &EtcdConfig) -> Result<Endpoint> {
    Ok(endpoint)
}
