//! What an etcd tells about itself, in Prometheus' text format.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::servers::http;

/// How long a member that runs may take to answer about itself.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What one member of an etcd told about itself at one time.
#[derive(Clone, Debug)]
pub struct EtcdMetrics {
    samples: Vec<Sample>,
}

#[derive(Clone, Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: u64,
}

impl EtcdMetrics {
    /// Asks a member.
    pub(super) fn fetch(member: SocketAddr) -> io::Result<EtcdMetrics> {
        Ok(EtcdMetrics::parse(&http::get(member, "/metrics", TIMEOUT)?))
    }

    /// Reads the text. What is no whole number is left out: nothing that is counted is.
    fn parse(text: &str) -> EtcdMetrics {
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        EtcdMetrics {
            samples: samples.filter_map(sample).collect(),
        }
    }

    /// The sum of one metric over all its labels; 0 if the member does not tell it.
    #[must_use]
    pub fn count(&self, name: &str) -> u64 {
        self.named(name).map(|sample| sample.value).sum()
    }

    /// Messages from clients, by method: `KV/Txn`. One for each unary request, and each message on a stream.
    #[must_use]
    pub fn requests(&self) -> BTreeMap<String, u64> {
        let mut requests = BTreeMap::new();
        for sample in self.named("grpc_server_msg_received_total") {
            let label = |name: &str| sample.labels.get(name).map_or("", String::as_str);
            // "etcdserverpb.KV"
            let service = label("grpc_service").rsplit('.').next().unwrap_or_default();
            let method = format!("{service}/{}", label("grpc_method"));
            *requests.entry(method).or_insert(0) += sample.value;
        }
        requests.retain(|_, count| *count > 0);
        requests
    }

    /// A label of a metric that has only one set of them.
    pub(super) fn label(&self, name: &str, label: &str) -> Option<String> {
        self.named(name).next()?.labels.get(label).cloned()
    }

    fn named(&self, name: &str) -> impl Iterator<Item = &Sample> {
        self.samples
            .iter()
            .filter(move |sample| sample.name == name)
    }
}

/// `name{label="value",other="value"} 3`, the labels only if there are some.
fn sample(line: &str) -> Option<Sample> {
    let (head, value) = line.rsplit_once(' ')?;
    let (name, labels) = match head.split_once('{') {
        None => (head, ""),
        Some((name, rest)) => (name, rest.strip_suffix('}')?),
    };
    let labels = labels.split("\",").filter_map(|pair| {
        let (label, value) = pair.split_once("=\"")?;
        Some((label.to_owned(), value.trim_end_matches('"').to_owned()))
    });
    Some(Sample {
        name: name.to_owned(),
        labels: labels.collect(),
        value: whole(value)?,
    })
}

/// Large counts are written as `2.147483648e+09`.
fn whole(text: &str) -> Option<u64> {
    let number: f64 = text.parse().ok()?;
    (number.fract() == 0.0).then(|| format!("{number:.0}").parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_over_labels_and_requests_named_by_method() {
        let metrics = EtcdMetrics::parse(
            "# HELP x y\n\
             x_total 3\n\
             big 2.147483648e+09\n\
             seconds 0.25\n\
             grpc_server_msg_received_total{grpc_method=\"Txn\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 2\n\
             grpc_server_msg_received_total{grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 0\n\
             id{server_id=\"ddd6\"} 1\n",
        );
        assert_eq!(metrics.count("x_total"), 3);
        assert_eq!(metrics.count("big"), 2_147_483_648);
        assert_eq!(metrics.count("seconds"), 0);
        assert_eq!(metrics.count("absent"), 0);
        assert_eq!(
            metrics.requests(),
            BTreeMap::from([("KV/Txn".to_owned(), 2)])
        );
        assert_eq!(metrics.label("id", "server_id").as_deref(), Some("ddd6"));
    }
}
