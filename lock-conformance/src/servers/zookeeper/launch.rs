//! How the members of a ZooKeeper are started.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use super::{session, words};
use crate::servers::ensemble::Ensemble;
use crate::servers::error::{StartError, find_faketime};
use crate::servers::firewall::Identity;
use crate::servers::member::{Launch, Member};
use crate::servers::port::free_ports;
use crate::servers::process::ServerProcess;
use crate::servers::tls::{self, TlsFiles};

const INSTALL: &str = "apt-get install zookeeper libslf4j-java default-jre-headless";

/// Where Debian puts what is needed of it: the server and the small logger it is content with.
const JARS: [&str; 2] = [
    "/usr/share/java/zookeeper.jar",
    "/usr/share/java/slf4j-simple.jar",
];

/// What TLS takes besides; it is installed with them, but not on the class path they bring.
const TLS_JARS: [&str; 2] = [
    "/usr/share/java/netty-codec.jar",
    "/usr/share/java/netty-resolver.jar",
];

/// What can be set.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) members: usize,
    pub(super) tick: Duration,
    pub(super) min_session_timeout: Option<Duration>,
    pub(super) config: String,
    pub(super) java: Vec<OsString>,
    pub(super) tls: bool,
    pub(super) isolatable: bool,
    pub(super) steppable: bool,
}

/// Where a member's clock stands, if it can be set. Relative: a server runs in its own directory.
pub(super) const CLOCK_FILE: &str = "clock";

/// Members that serve.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) ensemble: Ensemble,
    /// Where each member speaks TLS, if it does.
    pub(super) tls_ports: Vec<u16>,
    pub(super) tls: Option<TlsFiles>,
}

/// The ports of one server.
#[derive(Clone, Copy, Debug)]
struct Ports {
    client: u16,
    tls: u16,
    quorum: u16,
    election: u16,
}

impl Settings {
    /// Starts the members, and waits until every one serves.
    pub(super) fn start(&self) -> Result<Started, StartError> {
        let mut jars = self.jars().into_iter();
        if let Some(missing) = jars.find(|jar| !Path::new(jar).is_file()) {
            return Err(StartError::Missing {
                what: missing.to_owned(),
                install: INSTALL,
            });
        }
        let faketime = self.steppable.then(find_faketime).transpose()?;
        let (ensemble, (ports, tls)) =
            Ensemble::start(self.isolatable, || self.prepare(faketime.as_deref()))?;
        Ok(Started {
            ensemble,
            tls_ports: ports.iter().map(|ports| ports.tls).collect(),
            tls,
        })
    }

    #[expect(clippy::type_complexity, reason = "used once, a line above")]
    fn prepare(
        &self,
        faketime: Option<&Path>,
    ) -> Result<(Vec<Member>, (Vec<Ports>, Option<TlsFiles>)), StartError> {
        let mut ports = Vec::new();
        let mut processes = Vec::new();
        for _ in 0..self.members {
            let [client, tls, quorum, election] = free_ports();
            ports.push(Ports {
                client,
                tls,
                quorum,
                election,
            });
            processes.push(ServerProcess::new("distlock-zookeeper-")?);
        }
        let tls = match self.tls {
            true => Some(tls::generate_for(&processes)?),
            false => None,
        };
        let members = processes.into_iter().enumerate();
        let members = members
            .map(|(i, process)| self.member(process, i, &ports, faketime))
            .collect::<io::Result<_>>()?;
        Ok((members, (ports, tls)))
    }

    fn member(
        &self,
        process: ServerProcess,
        index: usize,
        ports: &[Ports],
        faketime: Option<&Path>,
    ) -> io::Result<Member> {
        let config = self.config_file(index, ports);
        fs::write(process.dir().join("zoo.cfg"), config)?;
        let data = process.dir().join("data");
        fs::create_dir(&data)?;
        fs::write(data.join("myid"), format!("{}\n", index + 1))?;
        let mut launch = self.launch(ports[index]);
        if let Some(library) = faketime {
            crate::faketime::set(&process.dir().join(CLOCK_FILE), 0)?;
            launch.env = crate::faketime::env(library, CLOCK_FILE).into();
        }
        Member::new(process, launch)
    }

    fn config_file(&self, index: usize, ports: &[Ports]) -> String {
        let tick = self.tick.as_millis();
        let min = self.min_session_timeout.unwrap_or(2 * self.tick);
        let min = min.as_millis();
        let mut file = format!(
            "tickTime={tick}\n\
             initLimit=50\n\
             syncLimit=10\n\
             dataDir=./data\n\
             clientPort={}\n\
             clientPortAddress=127.0.0.1\n\
             admin.enableServer=false\n\
             maxClientCnxns=0\n\
             4lw.commands.whitelist=*\n\
             minSessionTimeout={min}\n\
             maxSessionTimeout=60000\n\
             forceSync=no\n",
            ports[index].client
        );
        if ports.len() > 1 {
            for (i, member) in ports.iter().enumerate() {
                let (id, quorum, election) = (i + 1, member.quorum, member.election);
                let _ = writeln!(file, "server.{id}=127.0.0.1:{quorum}:{election}");
            }
        }
        if self.tls {
            let port = ports[index].tls;
            let _ = writeln!(file, "secureClientPort={port}");
            let _ = writeln!(file, "secureClientPortAddress=127.0.0.1");
            let factory = "org.apache.zookeeper.server.NettyServerCnxnFactory";
            let _ = writeln!(file, "serverCnxnFactory={factory}");
            // Relative: the server runs in its own directory.
            let _ = writeln!(file, "ssl.keyStore.location={}", tls::BOTH);
            let _ = writeln!(file, "ssl.trustStore.location={}", tls::BOTH);
            let _ = writeln!(file, "ssl.clientAuth=none");
        }
        // Last, so that a test's own settings win.
        file.push_str(&self.config);
        file
    }

    fn launch(&self, ports: Ports) -> Launch {
        let superuser = format!(
            "-Dzookeeper.DigestAuthenticationProvider.superDigest={}",
            session::SUPER_DIGEST
        );
        let mut args: Vec<OsString> = [
            "-Xmx256m",
            "-XX:+UseSerialGC",
            // Quick to start; nothing here runs long enough for better code to pay.
            "-XX:TieredStopAtLevel=1",
            // No files in a shared directory, which a killed process would leave behind.
            "-XX:-UsePerfData",
            "-Djava.net.preferIPv4Stack=true",
            "-Dznode.container.checkIntervalMs=1000",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            &superuser,
        ]
        .map(OsString::from)
        .into();
        args.extend(self.java.iter().cloned());
        let class_path = self.jars().join(":");
        let main = "org.apache.zookeeper.server.quorum.QuorumPeerMain";
        args.extend(["-cp", &class_path, main, "./zoo.cfg"].map(OsString::from));
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, ports.client));
        Launch {
            what: "ZooKeeper",
            install: INSTALL,
            program: "java".into(),
            args,
            env: Vec::new(),
            port: ports.client,
            identity: self
                .isolatable
                .then(|| Identity::new(ports.client, [ports.quorum, ports.election])),
            is_ready: Box::new(move || words::mode(addr).is_some()),
        }
    }

    fn jars(&self) -> Vec<&'static str> {
        let tls: &[&str] = if self.tls { &TLS_JARS } else { &[] };
        JARS.iter().chain(tls).copied().collect()
    }
}
