//! From a configuration or a URL to a backend.

use std::sync::Arc;

use lock_core::{Backend, Connect, Context, Registry, Result, async_trait};

use crate::backend::FileBackend;
use crate::config::FileConfig;

#[async_trait]
impl Connect for FileConfig {
    async fn connect(&self, context: Context) -> Result<Arc<dyn Backend>> {
        Ok(Arc::new(FileBackend::open(self, context)?))
    }
}

/// Adds `file://` to the schemes a program understands.
#[must_use]
pub fn register(registry: Registry) -> Registry {
    registry.with("file", |url| Ok(Box::new(FileConfig::from_url(url)?)))
}
