//! Lock URLs: `scheme://user:password@host:port,host:port/path?option=value`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::error::{Error, ErrorKind, Result};

/// A URL that names a backend, taken apart.
///
/// A backend *takes* the options it knows; whatever is left over is refused by
/// [`finish`](Self::finish), so that a mistyped option is an error and not a silent default.
/// `Debug` and errors never show the password.
#[derive(Clone)]
pub struct LockUrl {
    scheme: String,
    username: Option<String>,
    password: Option<String>,
    hosts: Vec<HostPort>,
    path: String,
    options: BTreeMap<String, String>,
    known: Vec<&'static str>,
}

/// One server of a URL.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostPort {
    /// Name or address, without brackets.
    pub host: String,
    /// The port, where the URL names one.
    pub port: Option<u16>,
}

impl LockUrl {
    /// Takes `text` apart.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when it is no URL, an option comes twice, or text is not UTF-8.
    pub fn parse(text: &str) -> Result<Self> {
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| invalid("a lock URL looks like scheme://host:port/path?option=value"))?;
        let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at(authority_end);
        let (credentials, hosts) = match authority.rsplit_once('@') {
            Some((credentials, hosts)) => (Some(credentials), hosts),
            None => (None, authority),
        };

        // The url crate knows one host; the others of a cluster are read by it one at a time.
        let mut list = hosts.split(',');
        let first = list.next().unwrap_or_default();
        let whole = match credentials {
            Some(credentials) => format!("{scheme}://{credentials}@{first}{tail}"),
            None => format!("{scheme}://{first}{tail}"),
        };
        let url = parse_one(&whole)?;
        if url.fragment().is_some() {
            return Err(invalid("a lock URL has no #fragment"));
        }
        let mut servers: Vec<HostPort> = host_port(&url).into_iter().collect();
        for other in list {
            let one = parse_one(&format!("{scheme}://{other}"))?;
            servers
                .push(host_port(&one).ok_or_else(|| invalid("a host is missing after a comma"))?);
        }

        let mut options = BTreeMap::new();
        for (name, value) in url.query_pairs() {
            if options
                .insert(name.to_string(), value.into_owned())
                .is_some()
            {
                return Err(invalid(format!("the URL option {name} comes twice")));
            }
        }
        let username = Some(url.username()).filter(|name| !name.is_empty());
        Ok(Self {
            scheme: url.scheme().to_owned(),
            username: username.map(decode).transpose()?,
            password: url.password().map(decode).transpose()?,
            hosts: servers,
            path: decode(url.path())?,
            options,
            known: Vec::new(),
        })
    }

    /// What comes before `://`, in lower case.
    #[must_use]
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// The user, decoded.
    #[must_use]
    pub fn username(&self) -> Option<&str> {
        self.username.as_deref()
    }

    /// The password, decoded.
    #[must_use]
    pub fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// The servers, in the order of the URL; empty for a URL without a host.
    #[must_use]
    pub fn hosts(&self) -> &[HostPort] {
        &self.hosts
    }

    /// The path, decoded, with its leading slash; empty when there is none.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Takes the option `name` out of the URL.
    pub fn take(&mut self, name: &'static str) -> Option<String> {
        self.known.push(name);
        self.options.remove(name)
    }

    /// Takes the option `name` as a duration such as `250ms`, `10s` or `1m 30s`.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when it does not read as one.
    pub fn take_duration(&mut self, name: &'static str) -> Result<Option<Duration>> {
        let Some(text) = self.take(name) else {
            return Ok(None);
        };
        humantime::parse_duration(&text)
            .map(Some)
            .map_err(|source| {
                invalid(format!(
                    "the URL option {name}={text} is no duration such as 500ms or 10s"
                ))
                .with_source(source)
            })
    }

    /// Refuses what nobody took.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] naming the unknown option and the known ones.
    pub fn finish(self) -> Result<()> {
        match self.options.keys().next() {
            None => Ok(()),
            Some(unknown) => {
                let mut known = self.known;
                known.sort_unstable();
                known.dedup();
                Err(invalid(format!(
                    "unknown URL option {unknown:?}; {} knows: {}",
                    self.scheme,
                    known.join(", ")
                )))
            }
        }
    }
}

fn parse_one(text: &str) -> Result<url::Url> {
    // The text itself is not repeated in the error: it may carry a password.
    url::Url::parse(text).map_err(|source| invalid(format!("malformed URL: {source}")))
}

fn host_port(url: &url::Url) -> Option<HostPort> {
    let host = url.host_str().filter(|host| !host.is_empty())?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some(HostPort {
        host: host.to_owned(),
        port: url.port(),
    })
}

fn decode(text: &str) -> Result<String> {
    percent_decode_str(text)
        .decode_utf8()
        .map(|text| text.into_owned())
        .map_err(|_| invalid("a part of the URL is not UTF-8 after percent-decoding"))
}

fn invalid(detail: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, "connect").with_detail(detail)
}

impl fmt::Debug for LockUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockUrl")
            .field("scheme", &self.scheme)
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "…"))
            .field("hosts", &self.hosts)
            .field("path", &self.path)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_hosts_credentials_and_options_are_read() {
        let mut url = LockUrl::parse("etcd://u%40x:p%2F@a:1,[::1]:2,c/pre%20fix?op_timeout=250ms")
            .expect("parses");
        assert_eq!(url.username(), Some("u@x"));
        assert_eq!(url.password(), Some("p/"));
        let hosts: Vec<_> = url
            .hosts()
            .iter()
            .map(|h| (h.host.as_str(), h.port))
            .collect();
        assert_eq!(hosts, [("a", Some(1)), ("::1", Some(2)), ("c", None)]);
        assert_eq!(url.path(), "/pre fix");
        assert_eq!(
            url.take_duration("op_timeout").expect("reads"),
            Some(Duration::from_millis(250))
        );
        url.finish().expect("nothing is left");
    }

    #[test]
    fn malformed_urls_are_refused() {
        for bad in [
            "",
            "redis",
            "redis:",
            "://x",
            "redis://a:99999",
            "redis://a:1,",
            "redis://a:1,b:x",
            "redis://a/?x=1&x=2",
            "redis://a/#f",
            "redis://a/%ff",
        ] {
            let error = LockUrl::parse(bad).expect_err(bad);
            assert_eq!(error.kind(), ErrorKind::Invalid, "{bad}");
        }
    }

    #[test]
    fn password_is_never_shown() {
        let url = LockUrl::parse("redis://u:hunter2@a/").expect("parses");
        assert!(!format!("{url:?}").contains("hunter2"));
        let error = LockUrl::parse("redis://u:hunter2@a:99999/").expect_err("a bad port");
        assert!(!format!("{error:?} {error}").contains("hunter2"));
    }

    #[test]
    fn unknown_option_is_refused_and_the_known_ones_named() {
        let mut url = LockUrl::parse("redis://a/?prefixx=1").expect("parses");
        assert_eq!(url.take("prefix"), None);
        let error = url.finish().expect_err("refused").to_string();
        assert!(
            error.contains("prefixx") && error.contains("prefix"),
            "{error}"
        );
    }
}
