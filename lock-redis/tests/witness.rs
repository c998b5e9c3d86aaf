//! Redis' own record: what scripts did to the keys of locks, as MONITOR shows it.

use std::io;
use std::sync::{Mutex, PoisonError};

use lock_conformance::history::Record;
use lock_conformance::servers::{Monitor, words_of};
use lock_conformance::{Standing, Witness, async_trait};

/// A trace of one server, for the locks below one prefix.
pub(crate) struct Trace<'a> {
    monitor: Mutex<Monitor<'a>>,
    prefix: String,
}

impl<'a> Trace<'a> {
    pub(crate) fn new(monitor: Monitor<'a>, prefix: &str) -> Self {
        Self {
            monitor: Mutex::new(monitor),
            prefix: prefix.to_owned(),
        }
    }

    /// The lock whose holder is kept under this key: `PREFIX:{pNN}:l:NAME`.
    fn name<'k>(&self, key: &'k str) -> Option<&'k str> {
        let rest = key.strip_prefix(&self.prefix)?.strip_prefix(":{p")?;
        let (_partition, rest) = rest.split_once("}:")?;
        rest.strip_prefix("l:")
    }
}

#[async_trait]
impl Witness for Trace<'_> {
    async fn records(&self) -> io::Result<Vec<Record>> {
        let mut monitor = self.monitor.lock().unwrap_or_else(PoisonError::into_inner);
        let mut standing = Standing::default();
        for line in monitor.lua_lines()? {
            let words = words_of(&line);
            let [command, key, fields @ ..] = &words[..] else {
                continue;
            };
            let Some(name) = self.name(key) else { continue };
            match command.to_ascii_uppercase().as_str() {
                "HSET" => {
                    if let Some(token) = granted(fields)? {
                        standing.set(name, Some(token));
                    }
                }
                "HDEL" if fields.iter().any(|field| field == "holder") => standing.set(name, None),
                "DEL" | "UNLINK" => standing.set(name, None),
                _ => {}
            }
        }
        Ok(standing.into_records())
    }
}

/// The token of the holder that these fields make one, if they do.
fn granted(fields: &[String]) -> io::Result<Option<u64>> {
    let value = |wanted: &str| {
        let mut pairs = fields.chunks_exact(2);
        pairs.find(|pair| pair[0] == wanted).map(|pair| &pair[1])
    };
    match (value("holder"), value("last")) {
        (Some(_), Some(token)) => token.parse().map(Some).map_err(io::Error::other),
        _ => Ok(None),
    }
}
