//! How the members of an etcd are started.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use super::ctl::{self, Ctl, INSTALL};
use super::metrics::EtcdMetrics;
use crate::servers::ensemble::Ensemble;
use crate::servers::error::StartError;
use crate::servers::fetched;
use crate::servers::firewall::Identity;
use crate::servers::member::{Launch, Member};
use crate::servers::port::free_ports;
use crate::servers::process::ServerProcess;
use crate::servers::tls::{self, TlsFiles};

/// Which etcd.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum EtcdVersion {
    /// As Debian ships it; `etcd` in `LOCK_TEST_ALLOW_MISSING`.
    #[default]
    V3_4,
    /// 3.5.1, as `cargo xtask etcd` fetches it, or what `LOCK_TEST_ETCD_3_5` names; `etcd-3.5` in
    /// `LOCK_TEST_ALLOW_MISSING`.
    V3_5,
}

/// What can be set.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) version: EtcdVersion,
    pub(super) members: usize,
    pub(super) args: Vec<OsString>,
    pub(super) tls: bool,
    pub(super) isolatable: bool,
}

/// Members that serve.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) ensemble: Ensemble,
    /// Where each member tells of itself.
    pub(super) metrics: Vec<SocketAddr>,
    pub(super) tls: Option<TlsFiles>,
}

/// The ports of one member.
#[derive(Clone, Copy, Debug)]
struct Ports {
    client: u16,
    peer: u16,
    metrics: u16,
}

impl Settings {
    /// Starts the members, and waits until every one serves and nothing of the start is still to be written.
    pub(super) fn start(&self) -> Result<Started, StartError> {
        let program = match self.version {
            EtcdVersion::V3_4 => PathBuf::from("etcd"),
            EtcdVersion::V3_5 => fetched::find("LOCK_TEST_ETCD_3_5", "etcd-3.5", "etcd").ok_or(
                StartError::Missing {
                    what: "etcd 3.5".into(),
                    install: "cargo xtask etcd",
                },
            )?,
        };
        ctl::find()?;
        let (ensemble, (ports, tls)) = Ensemble::start(self.isolatable, || self.prepare(&program))?;
        Ok(Started {
            ensemble,
            metrics: ports.iter().map(|ports| local(ports.metrics)).collect(),
            tls,
        })
    }

    #[expect(clippy::type_complexity, reason = "used once, a line above")]
    fn prepare(
        &self,
        program: &Path,
    ) -> Result<(Vec<Member>, (Vec<Ports>, Option<TlsFiles>)), StartError> {
        let mut ports = Vec::new();
        let mut processes = Vec::new();
        for _ in 0..self.members {
            let [client, peer, metrics] = free_ports();
            ports.push(Ports {
                client,
                peer,
                metrics,
            });
            processes.push(ServerProcess::new("distlock-etcd-")?);
        }
        let tls = match self.tls {
            true => Some(shared_certificate(&processes)?),
            false => None,
        };
        let cluster = ports
            .iter()
            .enumerate()
            .map(|(i, ports)| format!("m{i}={}", peer_url(ports.peer)))
            .collect::<Vec<_>>()
            .join(",");
        let members = processes
            .into_iter()
            .enumerate()
            .map(|(i, process)| {
                let launch = self.launch(program, i, ports[i], &cluster, tls.as_ref());
                Member::new(process, launch)
            })
            .collect::<io::Result<_>>()?;
        Ok((members, (ports, tls)))
    }

    fn launch(
        &self,
        program: &Path,
        index: usize,
        ports: Ports,
        cluster: &str,
        tls: Option<&TlsFiles>,
    ) -> Launch {
        let scheme = if self.tls { "https" } else { "http" };
        let clients = format!("{scheme}://127.0.0.1:{}", ports.client);
        let peers = peer_url(ports.peer);
        let settings = [
            ("--name", format!("m{index}")),
            ("--data-dir", "data".to_owned()),
            ("--listen-client-urls", clients.clone()),
            ("--advertise-client-urls", clients),
            ("--listen-peer-urls", peers.clone()),
            ("--initial-advertise-peer-urls", peers),
            (
                "--listen-metrics-urls",
                format!("http://127.0.0.1:{}", ports.metrics),
            ),
            ("--initial-cluster", cluster.to_owned()),
            ("--initial-cluster-state", "new".to_owned()),
            ("--heartbeat-interval", "50".to_owned()),
            ("--election-timeout", "500".to_owned()),
        ];
        let mut args: Vec<OsString> = vec![
            "--unsafe-no-fsync".into(),
            // It would connect to its own server, and be counted as a client.
            "--enable-grpc-gateway=false".into(),
        ];
        for (setting, value) in settings {
            args.extend([setting.into(), value.into()]);
        }
        if self.tls {
            for (setting, file) in [("--cert-file", tls::CERT), ("--key-file", tls::KEY)] {
                args.extend([setting.into(), file.into()]);
            }
        }
        args.extend(self.args.iter().cloned());
        let ctl = Ctl {
            endpoints: vec![local(ports.client).to_string()],
            ca: tls.map(|files| files.ca.clone()),
            password: None,
        };
        Launch {
            what: "etcd",
            install: INSTALL,
            program: program.to_owned(),
            args,
            // 3.4 asks for this before it starts on anything but x86-64.
            env: vec![("ETCD_UNSUPPORTED_ARCH", go_arch().into())],
            port: ports.client,
            identity: self
                .isolatable
                .then(|| Identity::new(ports.client, [ports.peer])),
            is_ready: Box::new(move || is_ready(local(ports.metrics), &ctl)),
        }
    }
}

/// Whether a member serves, and has written what it writes at a start: the cluster's version is decided, and a client
/// is answered, which it is not before the member's own addresses are published.
fn is_ready(metrics: SocketAddr, ctl: &Ctl) -> bool {
    let Ok(metrics) = EtcdMetrics::fetch(metrics) else {
        return false;
    };
    metrics.count("etcd_server_has_leader") == 1
        && metrics.count("etcd_cluster_version") == 1
        && ctl.run(&["endpoint", "status"]).is_ok()
}

/// One certificate for all members, in each one's own directory; gives the first's.
fn shared_certificate(processes: &[ServerProcess]) -> Result<TlsFiles, StartError> {
    let failed = |why: String| StartError::Failed {
        what: "etcd".to_owned(),
        why,
    };
    let first = processes
        .first()
        .ok_or_else(|| failed("it has no member".to_owned()))?;
    let files = tls::generate(first.dir()).map_err(|error| failed(error.to_string()))?;
    for process in &processes[1..] {
        for file in [tls::CERT, tls::KEY] {
            fs::copy(first.dir().join(file), process.dir().join(file))?;
        }
    }
    Ok(files)
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn peer_url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

/// What Go calls this machine's processor.
fn go_arch() -> &'static str {
    match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
