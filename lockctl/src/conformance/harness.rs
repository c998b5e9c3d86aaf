//! A backend under a URL, as the suite wants it: a place of its own for each case, and no faults.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use distlock::{Capabilities, Connect, LockUrl, Scope};
use lock_conformance::{Arena, Case, Harness, Missing, Pace, Tier};

use crate::connect;
use crate::exit::Failure;

/// What other clients see as the owner of the suite's locks.
const LABEL: &str = "lockctl conformance";
/// Shorter leases would test the network more than the backend.
const SHORTEST_TTL: Duration = Duration::from_secs(1);

/// A backend under a URL.
#[derive(Clone, Debug)]
pub(crate) struct UrlHarness {
    /// `None` where each client has a store of its own anyway: in memory.
    place: Option<Place>,
    /// What nobody else's locks are kept under.
    run: String,
    capabilities: Capabilities,
}

impl UrlHarness {
    /// The backend that `url` names, which has to be there.
    pub(crate) fn new(url: &str, run: String) -> Result<Self, Failure> {
        let capabilities = connect::with_locks(url, async |locks| Ok(locks.capabilities()))?;
        let place = match capabilities.scope {
            Scope::Process => None,
            _ => Some(Place::of(url)?),
        };
        if let Some(place) = &place {
            // What is left to go wrong with a case's own URL goes wrong here.
            let (_, _options) = connect::read(&place.for_case(&run, "R0.00"), LABEL)?;
        }
        Ok(Self {
            place,
            run,
            capabilities,
        })
    }

    fn ttl(&self) -> Duration {
        let shortest = self.capabilities.ttl.map_or(Duration::ZERO, |ttl| ttl.min);
        shortest.max(SHORTEST_TTL)
    }
}

impl Harness for UrlHarness {
    fn name(&self) -> &str {
        self.capabilities.backend
    }

    fn pace(&self) -> Pace {
        Pace::new(self.ttl())
    }

    fn crosses_processes(&self) -> bool {
        self.capabilities.scope > Scope::Process
    }

    /// Without the URL, which may carry a password.
    fn again(&self, case: &Case) -> Option<String> {
        let full = match case.tier {
            Tier::Fast => "",
            Tier::Full => "--full ",
        };
        let title = case.title();
        Some(format!(
            "lockctl conformance {full}--filter {title}, with the same --url or LOCK_URL"
        ))
    }

    fn arena(&self, case: &Case) -> Result<Arena, Missing> {
        let Some(place) = &self.place else {
            let store = distlock::MemoryStore::new();
            return Ok(Arena::new(move || Box::new(store.clone())));
        };
        let url = place.for_case(&self.run, case.id);
        let (_, options) = connect::read(&url, LABEL).map_err(missing)?;
        let connect = {
            let url = url.clone();
            move || connector(&url).expect("it was read before")
        };
        let leftovers = Leftovers::of(&url).map_err(missing)?;
        Ok(Arena::new(connect)
            .with_options(options)
            .with_spec(url)
            .keeping(leftovers))
    }
}

/// What worker processes know: the URL that they are given.
pub(crate) struct WorkerHarness;

impl Harness for WorkerHarness {
    fn name(&self) -> &str {
        LABEL
    }

    fn pace(&self) -> Pace {
        Pace::new(SHORTEST_TTL)
    }

    fn arena(&self, _: &Case) -> Result<Arena, Missing> {
        Err(Missing {
            what: "a worker runs no cases".to_owned(),
            allowed: false,
        })
    }

    fn connector(&self, spec: &str) -> Option<Box<dyn Connect>> {
        connector(spec)
    }
}

fn connector(url: &str) -> Option<Box<dyn Connect>> {
    connect::read(url, LABEL).ok().map(|(connect, _)| connect)
}

fn missing(failure: Failure) -> Missing {
    Missing {
        what: failure.to_string(),
        allowed: false,
    }
}

/// What a case leaves behind that nobody else would remove: a directory, where locks are files.
struct Leftovers(Option<PathBuf>);

impl Leftovers {
    fn of(url: &str) -> Result<Self, Failure> {
        let url = LockUrl::parse(url)?;
        let directory = (url.scheme() == "file").then(|| PathBuf::from(url.path()));
        Ok(Self(directory))
    }
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        if let Some(directory) = &self.0 {
            // It is not there when the case never connected.
            let _ = fs::remove_dir_all(directory);
        }
    }
}

/// Where the backend keeps its locks, as far as its URL says.
#[derive(Clone, Debug)]
enum Place {
    /// In the option `prefix`, with this value: all before it, and all options behind it.
    Prefix {
        base: String,
        prefix: String,
        options: Vec<String>,
    },
    /// In the path.
    Path { base: String, options: String },
}

impl Place {
    fn of(url: &str) -> Result<Self, Failure> {
        let (base, options) = url.split_once('?').unwrap_or((url, ""));
        let (scheme, rest) = base.split_once("://").unwrap_or((base, ""));
        if matches!(scheme, "redis" | "rediss" | "valkey" | "valkeys") {
            let (prefix, options): (Vec<_>, Vec<_>) = options
                .split('&')
                .filter(|option| !option.is_empty())
                .partition(|option| option.starts_with("prefix="));
            let prefix = prefix
                .first()
                .and_then(|option| option.strip_prefix("prefix="));
            return Ok(Self::Prefix {
                base: base.to_owned(),
                prefix: prefix.unwrap_or("distlock").to_owned(),
                options: options.into_iter().map(str::to_owned).collect(),
            });
        }
        let path = match rest.find('/') {
            Some(at) => rest[at..].trim_end_matches('/'),
            None => "",
        };
        let base = match (scheme, path) {
            ("file", "") => format!("file://{}", default_dir()?),
            (_, "") => format!("{}/distlock", base.trim_end_matches('/')),
            _ => base.trim_end_matches('/').to_owned(),
        };
        Ok(Self::Path {
            base,
            options: options.to_owned(),
        })
    }

    /// The URL of a place beside the backend's own.
    fn for_case(&self, run: &str, case: &str) -> String {
        let case = case.replace('.', "-");
        match self {
            Self::Prefix {
                base,
                prefix,
                options,
            } => {
                let mut url = format!("{base}?prefix={prefix}-conformance-{run}-{case}");
                for option in options {
                    url.push('&');
                    url.push_str(option);
                }
                url
            }
            Self::Path { base, options } => {
                let question = if options.is_empty() { "" } else { "?" };
                format!("{base}-conformance-{run}-{case}{question}{options}")
            }
        }
    }
}

#[cfg(feature = "file")]
fn default_dir() -> Result<String, Failure> {
    let config = distlock::file::FileConfig::of_user()?;
    let dir = config.dir().to_string_lossy();
    // What would end the path of a URL, or be decoded.
    Ok(dir
        .replace('%', "%25")
        .replace('?', "%3F")
        .replace('#', "%23"))
}

#[cfg(not(feature = "file"))]
fn default_dir() -> Result<String, Failure> {
    // Refused when it is read.
    Ok(String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_case_has_a_place_beside_the_backends_own() {
        for (url, place) in [
            (
                "redis://h:1",
                "redis://h:1?prefix=distlock-conformance-x-R1-02",
            ),
            (
                "rediss://u:p@h/3?prefix=shop&ca=/ca.pem",
                "rediss://u:p@h/3?prefix=shop-conformance-x-R1-02&ca=/ca.pem",
            ),
            (
                "etcd://a:1,b:2",
                "etcd://a:1,b:2/distlock-conformance-x-R1-02",
            ),
            (
                "zk://a,b/app/?session_timeout=2s",
                "zk://a,b/app-conformance-x-R1-02?session_timeout=2s",
            ),
            ("file:///var/locks", "file:///var/locks-conformance-x-R1-02"),
        ] {
            let seen = Place::of(url).expect("reads").for_case("x", "R1.02");
            assert_eq!(seen, place);
        }
    }
}
