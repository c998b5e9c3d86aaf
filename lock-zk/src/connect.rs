//! From a configuration or a URL to a backend.

use std::sync::Arc;

use lock_core::{Backend, Connect, Context, Registry, Result, async_trait};

use crate::backend::ZkBackend;
use crate::config::ZkConfig;

#[async_trait]
impl Connect for ZkConfig {
    async fn connect(&self, context: Context) -> Result<Arc<dyn Backend>> {
        Ok(Arc::new(ZkBackend::connect(self.clone(), context).await?))
    }
}

/// Adds `zk://` to the schemes a program understands.
#[must_use]
pub fn register(registry: Registry) -> Registry {
    registry.with("zk", |url| Ok(Box::new(ZkConfig::from_url(url)?)))
}
