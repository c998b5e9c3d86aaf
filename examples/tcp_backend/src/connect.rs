//! From a URL to a backend.

use std::sync::Arc;

use lock_core::{
    Backend, Connect, Context, Error, ErrorKind, LockUrl, Registry, Result, async_trait,
};

use crate::backend::TcpBackend;

const DEFAULT_PORT: u16 = 7700;
/// Above the largest base there is room for more tokens than anybody can use.
const LARGEST_BASE: u64 = 1 << 62;

/// Where the server is.
#[derive(Clone, Debug)]
pub struct TcpConfig {
    addr: String,
}

impl TcpConfig {
    /// The server at `addr`, such as `localhost:7700`.
    #[must_use]
    pub fn new(addr: impl Into<String>) -> Self {
        Self { addr: addr.into() }
    }

    /// Reads `tcp://host[:port]`.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when the URL says more than that, or less.
    pub fn from_url(url: &LockUrl) -> Result<Self> {
        let bare = url.username().is_none() && matches!(url.path(), "" | "/");
        match url.hosts() {
            [server] if bare => {
                let port = server.port.unwrap_or(DEFAULT_PORT);
                Ok(Self::new(match server.host.contains(':') {
                    true => format!("[{}]:{port}", server.host),
                    false => format!("{}:{port}", server.host),
                }))
            }
            _ => Err(Error::new(ErrorKind::Invalid, "connect")
                .with_detail("a URL of this backend is tcp://host or tcp://host:port")),
        }
    }
}

#[async_trait]
impl Connect for TcpConfig {
    async fn connect(&self, context: Context) -> Result<Arc<dyn Backend>> {
        if context.fence_base > LARGEST_BASE {
            return Err(Error::new(ErrorKind::Invalid, "connect")
                .with_detail(format!("fence_base is at most {LARGEST_BASE}")));
        }
        Ok(Arc::new(
            TcpBackend::connect(self.addr.clone(), context).await?,
        ))
    }
}

/// Adds `tcp://` to the schemes that a program understands.
#[must_use]
pub fn register(registry: Registry) -> Registry {
    registry.with("tcp", |url| Ok(Box::new(TcpConfig::from_url(url)?)))
}
