//! From what a TLS connection trusts and shows to what the client library takes.

use std::path::Path;

use lock_core::{Error, Result};
use zookeeper_client::TlsOptions;

use crate::config::TlsConfig;
use crate::error::invalid;

/// Reads the files of `config`.
///
/// The client library takes the process's crypto provider, and panics when there are two to choose
/// from and none was chosen: ring is, unless the program has chosen before.
pub(crate) fn options(config: &TlsConfig) -> Result<TlsOptions> {
    // An error says that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let unfit = |path: &Path, source: zookeeper_client::Error| unusable(path).with_source(source);
    let mut options = TlsOptions::new()
        .with_pem_ca(&read(&config.ca)?)
        .map_err(|source| unfit(&config.ca, source))?;
    if let Some((cert, key)) = &config.identity {
        options = options
            .with_pem_identity(&read(cert)?, &read(key)?)
            .map_err(|source| unfit(cert, source))?;
    }
    Ok(options)
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|source| unusable(path).with_source(source))
}

fn unusable(path: &Path) -> Error {
    invalid(
        "connect",
        format!("the PEM file {} cannot be used", path.display()),
    )
}
