//! What the server itself has counted, where it tells.

/// A way to ask a server how many commands its clients have sent.
pub(crate) struct Server {
    #[cfg(feature = "redis")]
    connection: distlock::redis::redis::Connection,
}

impl Server {
    /// Redis and Valkey tell, unless this client may not ask, or only over TLS. Their scripts are
    /// counted: each is one command, and there is hardly anything else.
    #[cfg(feature = "redis")]
    pub(crate) fn reach(url: &str) -> Option<Self> {
        use distlock::redis::redis::Client;
        use std::time::Duration;

        let (scheme, rest) = url.split_once("://")?;
        if !matches!(scheme, "redis" | "valkey") {
            return None;
        }
        // The options are distlock's own.
        let server = rest.split('?').next()?;
        let client = Client::open(format!("redis://{server}")).ok()?;
        let connection = client.get_connection_with_timeout(Duration::from_secs(2));
        let mut server = Self {
            connection: connection.ok()?,
        };
        server.commands().map(|_| server)
    }

    #[cfg(not(feature = "redis"))]
    pub(crate) fn reach(_url: &str) -> Option<Self> {
        None
    }

    /// The commands of clients so far.
    #[cfg(feature = "redis")]
    pub(crate) fn commands(&mut self) -> Option<u64> {
        let mut info = distlock::redis::redis::cmd("INFO");
        let stats: String = info.arg("commandstats").query(&mut self.connection).ok()?;
        Some(scripts_in(&stats))
    }

    #[cfg(not(feature = "redis"))]
    pub(crate) fn commands(&mut self) -> Option<u64> {
        None
    }
}

#[cfg(feature = "redis")]
fn scripts_in(stats: &str) -> u64 {
    let calls = |line: &str| {
        let (command, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let calls = rest.split(',').next()?.parse::<u64>().ok()?;
        matches!(command, "eval" | "evalsha").then_some(calls)
    };
    stats.lines().filter_map(calls).sum()
}

#[cfg(all(test, feature = "redis"))]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_counted_and_what_they_call_is_not() {
        let stats = "cmdstat_evalsha:calls=7,usec=1\r\ncmdstat_get:calls=50,usec=1\r\n\
                     cmdstat_eval:calls=1,usec=1\r\ncmdstat_evalsha_ro:calls=9,usec=1\r\n";
        assert_eq!(scripts_in(stats), 8);
    }
}
