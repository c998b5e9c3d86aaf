//! A throw-away certificate authority and a server certificate for 127.0.0.1.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// The name of the server's certificate in its directory.
pub(super) const CERT: &str = "server.crt";
/// The name of the key that belongs to it.
pub(super) const KEY: &str = "server.key";

/// Where the parts lie, all PEM.
#[derive(Clone, Debug)]
pub(super) struct TlsFiles {
    pub(super) ca: PathBuf,
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
}

/// Makes both and writes them to `dir`.
pub(super) fn generate(dir: &Path) -> Result<TlsFiles, Box<dyn Error + Send + Sync>> {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name
        .push(DnType::CommonName, "distlock test authority");
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;

    let mut server = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    server
        .distinguished_name
        .push(DnType::CommonName, "distlock test server");
    let key = KeyPair::generate()?;
    let cert = server.signed_by(&key, &ca)?;

    let files = TlsFiles {
        ca: dir.join("ca.crt"),
        cert: dir.join(CERT),
        key: dir.join(KEY),
    };
    fs::write(&files.ca, ca.pem())?;
    fs::write(&files.cert, cert.pem())?;
    fs::write(&files.key, key.serialize_pem())?;
    Ok(files)
}
