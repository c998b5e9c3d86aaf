//! TLS by rustls, with its cryptography passed by hand: a program may have several providers, and
//! then rustls panics unless one was made the process's default, which is not ours to choose.

use std::io;
use std::path::Path;
use std::sync::Arc;

use lock_core::{Error, ErrorKind, Result};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::config::TlsConfig;
use crate::error::invalid;

/// Makes TLS connections to one host.
#[derive(Clone)]
pub(crate) struct Tls {
    connector: tokio_rustls::TlsConnector,
    host: ServerName<'static>,
}

impl Tls {
    /// Reads the files. Blocks for as long as that takes, once per client.
    pub(crate) fn new(config: &TlsConfig, host: &str) -> Result<Self> {
        let host = ServerName::try_from(host.to_owned())
            .map_err(|source| invalid("connect", "no host name for TLS").with_source(source))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(refused)?
            .with_root_certificates(roots(config)?);
        let client = match &config.identity {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let key =
                    PrivateKeyDer::from_pem_file(key).map_err(|source| unreadable(key, source))?;
                builder
                    .with_client_auth_cert(certificates(cert)?, key)
                    .map_err(refused)?
            }
        };
        Ok(Self {
            connector: Arc::new(client).into(),
            host,
        })
    }

    pub(crate) async fn connect(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.connector.connect(self.host.clone(), stream).await
    }
}

fn roots(config: &TlsConfig) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match &config.ca {
        Some(file) => {
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(refused)?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            for problem in &found.errors {
                tracing::debug!(%problem, "a certificate of the system was skipped");
            }
            roots.add_parsable_certificates(found.certs);
        }
    }
    if roots.is_empty() {
        return Err(invalid("connect", "no certificate authority to trust"));
    }
    Ok(roots)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|source| unreadable(file, source))
}

fn unreadable(file: &Path, source: rustls::pki_types::pem::Error) -> Error {
    invalid(
        "connect",
        format!("{} does not read as PEM", file.display()),
    )
    .with_source(source)
}

fn refused(source: rustls::Error) -> Error {
    invalid("connect", "the TLS settings cannot be used").with_source(source)
}

/// Whether the server was reached and not believed, or we were not: no retry changes that.
pub(crate) fn denial(error: &io::Error) -> Option<Error> {
    let inner = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    let denied = matches!(
        inner,
        rustls::Error::InvalidCertificate(_)
            | rustls::Error::NoCertificatesPresented
            | rustls::Error::AlertReceived(_)
    );
    denied.then(|| {
        Error::new(ErrorKind::Denied, "connect")
            .with_detail(format!("TLS: {inner}"))
            .with_source(inner.clone())
    })
}
