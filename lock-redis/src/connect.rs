//! From a configuration or a URL to a backend.

use std::sync::Arc;

use lock_core::{Backend, Connect, Context, Registry, Result, async_trait};

use crate::backend::RedisBackend;
use crate::config::RedisConfig;

#[async_trait]
impl Connect for RedisConfig {
    async fn connect(&self, context: Context) -> Result<Arc<dyn Backend>> {
        Ok(Arc::new(
            RedisBackend::connect(self.clone(), context).await?,
        ))
    }
}

/// Adds `redis://`, `rediss://`, `valkey://` and `valkeys://` to the schemes a program understands.
#[must_use]
pub fn register(registry: Registry) -> Registry {
    ["redis", "rediss", "valkey", "valkeys"]
        .into_iter()
        .fold(registry, |registry, scheme| {
            registry.with(scheme, |url| Ok(Box::new(RedisConfig::from_url(url)?)))
        })
}
