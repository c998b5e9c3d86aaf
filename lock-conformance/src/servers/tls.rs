//! A throw-away certificate authority and a server certificate for 127.0.0.1.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use super::error::StartError;
use super::process::ServerProcess;

/// The name of the server's certificate in its directory.
pub(super) const CERT: &str = "server.crt";
/// The name of the key that belongs to it.
pub(super) const KEY: &str = "server.key";
/// The name of a file with both in it.
pub(super) const BOTH: &str = "server.pem";

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
    fs::write(dir.join(BOTH), key.serialize_pem() + &cert.pem())?;
    Ok(files)
}

/// One certificate for all members of a service, in each one's own directory; gives the first's.
pub(super) fn generate_for(members: &[ServerProcess]) -> Result<TlsFiles, StartError> {
    let failed = |why: String| StartError::Failed {
        what: "a server with TLS".to_owned(),
        why,
    };
    let (first, others) = members
        .split_first()
        .ok_or_else(|| failed("it has no member".to_owned()))?;
    let files = generate(first.dir()).map_err(|error| failed(error.to_string()))?;
    for other in others {
        for file in [CERT, KEY, BOTH] {
            fs::copy(first.dir().join(file), other.dir().join(file))?;
        }
    }
    Ok(files)
}
