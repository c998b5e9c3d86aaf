//! From a configuration or a URL to a backend.

use std::sync::Arc;

use lock_core::{Backend, Connect, Context, Registry, Result, async_trait};

use crate::backend::EtcdBackend;
use crate::config::EtcdConfig;

#[async_trait]
impl Connect for EtcdConfig {
    async fn connect(&self, context: Context) -> Result<Arc<dyn Backend>> {
        Ok(Arc::new(EtcdBackend::connect(self.clone(), context).await?))
    }
}

/// Adds `etcd://` to the schemes a program understands.
#[must_use]
pub fn register(registry: Registry) -> Registry {
    registry.with("etcd", |url| Ok(Box::new(EtcdConfig::from_url(url)?)))
}
