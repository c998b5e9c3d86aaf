//! Which URL schemes a program understands: a plain value, no globals.

use std::collections::BTreeMap;
use std::fmt;

use crate::backend::Connect;
use crate::error::{Error, ErrorKind, Result};
use crate::options::ClientOptions;
use crate::url::LockUrl;

/// Reads a backend's own part of a URL.
pub type ReadUrl = fn(&mut LockUrl) -> Result<Box<dyn Connect>>;

/// The backends that a program can connect to by URL.
#[derive(Clone, Default)]
pub struct Registry {
    schemes: BTreeMap<&'static str, Entry>,
}

#[derive(Clone)]
enum Entry {
    Present(ReadUrl),
    Absent { feature: &'static str },
}

impl Registry {
    /// A registry that knows no scheme.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a backend under `scheme`; the last one added wins.
    #[must_use]
    pub fn with(mut self, scheme: &'static str, read: ReadUrl) -> Self {
        self.schemes.insert(scheme, Entry::Present(read));
        self
    }

    /// Says that `scheme` is served by a backend that this build left out, and by which feature it
    /// comes in. Does nothing when the scheme is there.
    #[must_use]
    pub fn with_absent(mut self, scheme: &'static str, feature: &'static str) -> Self {
        self.schemes
            .entry(scheme)
            .or_insert(Entry::Absent { feature });
        self
    }

    /// The schemes that can be connected to.
    pub fn schemes(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.schemes
            .iter()
            .filter(|(_, entry)| matches!(entry, Entry::Present(_)))
            .map(|(scheme, _)| *scheme)
    }

    /// Reads a URL into a backend's configuration and the client's options. Connects to nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a malformed URL, an unknown option or an unknown scheme;
    /// [`ErrorKind::Unsupported`] for a scheme whose feature was not compiled in.
    pub fn read(&self, url: &str) -> Result<(Box<dyn Connect>, ClientOptions)> {
        let mut url = LockUrl::parse(url)?;
        let read = match self.schemes.get(url.scheme()) {
            Some(Entry::Present(read)) => read,
            Some(Entry::Absent { feature }) => {
                return Err(Error::new(ErrorKind::Unsupported, "connect").with_detail(format!(
                    "this build has no {}:// backend: it comes with the Cargo feature \"{feature}\"; there are: {}",
                    url.scheme(),
                    self.list()
                )));
            }
            None => {
                return Err(
                    Error::new(ErrorKind::Invalid, "connect").with_detail(format!(
                        "unknown scheme {}://; there are: {}",
                        url.scheme(),
                        self.list()
                    )),
                );
            }
        };
        let options = ClientOptions::from_url(&mut url)?;
        options.validate()?;
        let connect = read(&mut url)?;
        url.finish()?;
        Ok((connect, options))
    }

    fn list(&self) -> String {
        let schemes: Vec<_> = self
            .schemes()
            .map(|scheme| format!("{scheme}://"))
            .collect();
        if schemes.is_empty() {
            "none".to_owned()
        } else {
            schemes.join(", ")
        }
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.schemes()).finish()
    }
}
