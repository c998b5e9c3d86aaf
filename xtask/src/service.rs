//! Servers for the example.
//!
//! The suite's launchers are not used: this tool depends on nothing of the workspace, so that it runs
//! and says what is wrong when the workspace does not build.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{process, thread};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

/// A server that has not answered after so many looks, 10 ms apart, does not start.
const LOOKS: u32 = 3_000;

/// What the server writes, in its directory.
const LOG: &str = "log";

/// How long a server that is there may take to answer one look.
const LOOK: Duration = Duration::from_secs(5);

/// A kind of server.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) name: &'static str,
    /// The facade's feature for it.
    pub(crate) feature: &'static str,
    /// What `LOCK_TEST_ALLOW_MISSING` calls it.
    pub(crate) allow_missing: &'static str,
    /// What has to be on the path.
    pub(crate) programs: &'static [&'static str],
    scheme: &'static str,
    /// What starts it in a directory of its own, on its own port and on one for its peers.
    command: fn(&Path, client: SocketAddr, peer: SocketAddr) -> Result<Command>,
    /// A question, and what its answer contains once clients are served.
    question: &'static str,
    answer: &'static str,
}

/// All there are.
pub(crate) const ALL: [Service; 3] = [
    Service {
        name: "Redis",
        feature: "redis",
        allow_missing: "redis",
        programs: &["redis-server"],
        scheme: "redis",
        command: redis,
        question: "PING\r\n",
        answer: "PONG",
    },
    Service {
        name: "etcd",
        feature: "etcd",
        allow_missing: "etcd",
        programs: &["etcd"],
        scheme: "etcd",
        command: etcd,
        question: "GET /health HTTP/1.0\r\n\r\n",
        answer: "true",
    },
    Service {
        name: "ZooKeeper",
        feature: "zk",
        allow_missing: "zookeeper",
        programs: &["java"],
        scheme: "zk",
        command: zookeeper,
        question: "srvr",
        answer: "Mode",
    },
];

/// A server on a port of its own, gone when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    scheme: &'static str,
    child: Child,
    addr: SocketAddr,
    // Removed after `Drop` has killed the server.
    dir: TempDir,
}

impl Service {
    /// Starts one, and waits until it serves.
    pub(crate) fn start(&self) -> Result<Server> {
        let [client, peer] = free_addrs()?;
        let dir = TempDir::with_prefix("distlock-xtask-").context("a directory for the server")?;
        let log = File::create(dir.path().join(LOG))?;
        let mut command = (self.command)(dir.path(), client, peer)?;
        command
            .current_dir(&dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let mut server = Server {
            scheme: self.scheme,
            child: command.spawn().context(self.name)?,
            addr: client,
            dir,
        };
        for _ in 0..LOOKS {
            if self.serves(client) {
                return Ok(server);
            }
            if let Some(status) = server.child.try_wait()? {
                bail!("{} ended: {status}\n{}", self.name, server.log());
            }
            thread::sleep(Duration::from_millis(10));
        }
        bail!(
            "{} does not answer on {client}\n{}",
            self.name,
            server.log()
        )
    }

    fn serves(&self, addr: SocketAddr) -> bool {
        let ask = || {
            let mut stream = TcpStream::connect(addr).ok()?;
            stream.set_read_timeout(Some(LOOK)).ok()?;
            stream.write_all(self.question.as_bytes()).ok()?;
            let mut answer = Vec::new();
            let mut chunk = [0; 1024];
            // Redis does not close behind its answer, so the end is not waited for.
            while !String::from_utf8_lossy(&answer).contains(self.answer) {
                match stream.read(&mut chunk).ok()? {
                    0 => return None,
                    n => answer.extend_from_slice(&chunk[..n]),
                }
            }
            Some(())
        };
        ask().is_some()
    }
}

impl Server {
    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.addr)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join(LOG)).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing left to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn redis(_: &Path, client: SocketAddr, _: SocketAddr) -> Result<Command> {
    let mut command = Command::new("redis-server");
    command
        .args(["--bind", "127.0.0.1", "--port", &client.port().to_string()])
        .args(["--save", "", "--appendonly", "no"]);
    Ok(command)
}

fn etcd(_: &Path, client: SocketAddr, peer: SocketAddr) -> Result<Command> {
    let (client, peer) = (format!("http://{client}"), format!("http://{peer}"));
    let mut command = Command::new("etcd");
    command
        .args([
            "--name",
            "example",
            "--data-dir",
            "data",
            "--unsafe-no-fsync",
        ])
        .args([
            "--listen-client-urls",
            &client,
            "--advertise-client-urls",
            &client,
        ])
        .args([
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
        ])
        .args(["--initial-cluster", &format!("example={peer}")])
        // Short timers allow short leases.
        .args(["--heartbeat-interval", "50", "--election-timeout", "500"]);
    Ok(command)
}

fn zookeeper(dir: &Path, client: SocketAddr, _: SocketAddr) -> Result<Command> {
    let config = format!(
        "tickTime=200\n\
         dataDir=data\n\
         clientPort={}\n\
         clientPortAddress={}\n\
         admin.enableServer=false\n\
         4lw.commands.whitelist=srvr\n\
         maxSessionTimeout=60000\n\
         forceSync=no\n",
        client.port(),
        client.ip()
    );
    fs::write(dir.join("zoo.cfg"), config)?;
    let jars = "/usr/share/java/zookeeper.jar:/usr/share/java/slf4j-simple.jar";
    let mut command = Command::new("java");
    command
        .args([
            "-Xmx256m",
            "-XX:+UseSerialGC",
            "-XX:-UsePerfData",
            "-cp",
            jars,
        ])
        .args([
            "org.apache.zookeeper.server.quorum.QuorumPeerMain",
            "./zoo.cfg",
        ]);
    Ok(command)
}

/// Ports below the range that outgoing connections are given theirs from.
fn free_addrs<const N: usize>() -> Result<[SocketAddr; N]> {
    let mut free = (0..200)
        .map(|step| 20_000 + (process::id() * 7 + step) % 12_000)
        .filter_map(|port| u16::try_from(port).ok())
        .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        .filter(|addr| TcpListener::bind(addr).is_ok());
    let found: Vec<SocketAddr> = free.by_ref().take(N).collect();
    found.try_into().ok().context("no free ports below 32000")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::{is_on_path, may_be_missing};

    #[test]
    fn every_service_starts_and_is_gone_afterwards() {
        for service in &ALL {
            let there = service.programs.iter().all(|program| is_on_path(program));
            if !there && may_be_missing(service.allow_missing) {
                continue;
            }
            let server = service.start().unwrap();
            let addr = server.addr;
            assert_eq!(server.url(), format!("{}://{addr}", service.scheme));
            drop(server);
            assert!(TcpStream::connect(addr).is_err());
        }
    }
}
