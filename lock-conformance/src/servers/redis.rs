//! A Redis (or anything that takes its configuration file and speaks its protocol).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fs, io};

use super::control::{Control, is_error_reply};
use super::error::{StartError, skip_if_allowed};
use super::monitor::Monitor;
use super::port::free_port;
use super::process::ServerProcess;
use super::tls::{self, TlsFiles};
use crate::faketime;
use crate::fault::resp::Reply;
use crate::wait::poll;

/// A Redis is ready in 15-30 ms; the rest is for a machine that is compiling at the same time.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// The launcher's own user, so that its commands work whatever a test does to the default user.
const CONTROL_USER: &str = "distlock-test-control";

/// A running Redis on 127.0.0.1, gone when dropped.
///
/// All methods block, and take `&self` so that fault hooks and threads can share one server.
#[derive(Debug)]
pub struct RedisServer {
    process: ServerProcess,
    builder: RedisBuilder,
    control_password: String,
    ports: Ports,
    tls: Option<TlsFiles>,
    control: Mutex<ControlState>,
}

/// How to start a [`RedisServer`].
#[derive(Clone, Debug)]
#[must_use]
pub struct RedisBuilder {
    name: &'static str,
    install: &'static str,
    binary: PathBuf,
    env: Vec<(OsString, OsString)>,
    config: String,
    files: Vec<(&'static str, String)>,
    password: Option<String>,
    persistence: bool,
    tls: bool,
}

#[derive(Clone, Copy, Debug)]
struct Ports {
    plain: u16,
    tls: u16,
}

/// The one connection the launcher's commands go through, and every address it ever had.
#[derive(Debug, Default)]
struct ControlState {
    connection: Option<Control>,
    addrs: Vec<String>,
}

impl RedisServer {
    /// Starts a server without persistence, password or TLS.
    ///
    /// # Panics
    /// If Redis is not installed or does not start.
    #[must_use]
    pub fn start() -> RedisServer {
        RedisServer::builder().start()
    }

    /// Like [`start`](Self::start); `None`, said loudly, if Redis is missing and `LOCK_TEST_ALLOW_MISSING` names it.
    ///
    /// # Panics
    /// If Redis is missing and must not be, or does not start.
    #[must_use]
    pub fn start_or_skip() -> Option<RedisServer> {
        RedisServer::builder().start_or_skip()
    }

    /// A server with settings.
    pub fn builder() -> RedisBuilder {
        RedisBuilder {
            name: "redis",
            install: "apt-get install redis-server",
            binary: "redis-server".into(),
            env: Vec::new(),
            config: String::new(),
            files: Vec::new(),
            password: None,
            persistence: false,
            tls: false,
        }
    }

    /// The plain port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.ports.plain
    }

    /// Address of the plain port.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports.plain).into()
    }

    /// `redis://127.0.0.1:PORT`, with the password if one was set.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_to("redis", self.ports.plain)
    }

    /// The TLS port; `None` without [`tls`](RedisBuilder::tls).
    #[must_use]
    pub fn tls_port(&self) -> Option<u16> {
        self.tls.as_ref().map(|_| self.ports.tls)
    }

    /// `rediss://127.0.0.1:PORT`; `None` without [`tls`](RedisBuilder::tls).
    #[must_use]
    pub fn tls_url(&self) -> Option<String> {
        Some(self.url_to("rediss", self.tls_port()?))
    }

    /// PEM file of the authority that signed the server's certificate; `None` without [`tls`](RedisBuilder::tls).
    #[must_use]
    pub fn ca_path(&self) -> Option<&Path> {
        self.tls.as_ref().map(|files| files.ca.as_path())
    }

    /// The server's process id; `None` when it was killed or has ended.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// SIGKILL, and waits until the process is gone. Data of a server with persistence stays for a restart.
    pub fn kill(&self) {
        self.control().connection = None;
        self.process.kill();
    }

    /// Starts the server again on the same ports and in the same directory; kills it first if it runs.
    ///
    /// # Panics
    /// If it does not start.
    pub fn restart(&self) {
        self.control().connection = None;
        if let Err(error) = self.launch() {
            panic!("{error}");
        }
    }

    /// SIGSTOP: the server keeps its connections and does nothing.
    ///
    /// # Panics
    /// If the server does not run.
    pub fn pause(&self) {
        self.process.pause();
    }

    /// SIGCONT: the server goes on with everything that has arrived meanwhile.
    ///
    /// # Panics
    /// If the server does not run.
    pub fn resume(&self) {
        self.process.resume();
    }

    /// Whether [`pause`](Self::pause) was called last.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.process.is_paused()
    }

    /// Runs one command as a user with every right, past any proxy, and gives its reply as text, an array's elements
    /// on a line each.
    ///
    /// # Errors
    /// The server answered with an error, or not at all within 5 s.
    pub fn cli(&self, words: &[&str]) -> io::Result<String> {
        self.command(words).map(|reply| reply.to_string())
    }

    /// Like [`cli`](Self::cli), giving the reply itself.
    ///
    /// # Errors
    /// The server answered with an error, or not at all within 5 s.
    pub fn command(&self, words: &[&str]) -> io::Result<Reply> {
        let mut state = self.control();
        // A connection that is known to be dead is replaced before something is sent: afterwards nobody could tell
        // whether the command was executed.
        let mut connection = match state.connection.take().filter(Control::is_open) {
            Some(connection) => connection,
            None => self.connect(&mut state)?,
        };
        let result = connection.command(words);
        if result.as_ref().err().is_none_or(is_error_reply) {
            state.connection = Some(connection);
        }
        result
    }

    /// Calls per command since the start, from INFO commandstats; sub-commands as `config|get`.
    ///
    /// Also counts the calls made inside Lua: for what clients send, use [`monitor`](Self::monitor).
    ///
    /// # Errors
    /// The server does not answer.
    pub fn commandstats(&self) -> io::Result<BTreeMap<String, u64>> {
        Ok(parse_commandstats(&self.cli(&["INFO", "commandstats"])?))
    }

    /// Begins to count what clients send.
    ///
    /// # Errors
    /// The server does not answer.
    pub fn monitor(&self) -> io::Result<Monitor<'_>> {
        Monitor::open(self)
    }

    /// Keys of database 0 that would stay for ever, sorted.
    ///
    /// # Errors
    /// The server does not answer.
    pub fn keys_without_ttl(&self) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        for key in self.keys()? {
            // -1: exists and has no expiry; -2: gone since the scan saw it.
            if self.cli(&["PTTL", &key])? == "-1" {
                found.push(key);
            }
        }
        Ok(found)
    }

    /// All keys of database 0, sorted.
    ///
    /// # Errors
    /// The server does not answer.
    pub fn keys(&self) -> io::Result<Vec<String>> {
        let mut keys: Vec<String> = match self.command(&["KEYS", "*"])? {
            Reply::Array(keys) => keys.iter().map(Reply::to_string).collect(),
            other => return Err(io::Error::other(format!("not a list of keys: {other}"))),
        };
        keys.sort();
        Ok(keys)
    }

    pub(super) fn dir(&self) -> &Path {
        self.process.dir()
    }

    pub(super) fn connect_control(&self) -> io::Result<Control> {
        Control::connect(self.addr(), CONTROL_USER, &self.control_password)
    }

    /// The launcher's own user, and its password.
    pub(super) fn control_login(&self) -> (&str, &str) {
        (CONTROL_USER, &self.control_password)
    }

    pub(super) fn control_addrs(&self) -> Vec<String> {
        self.control().addrs.clone()
    }

    fn connect(&self, state: &mut ControlState) -> io::Result<Control> {
        let connection = self.connect_control()?;
        state.addrs.push(format!(" {}", connection.local_addr()?));
        Ok(connection)
    }

    fn control(&self) -> MutexGuard<'_, ControlState> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn url_to(&self, scheme: &str, port: u16) -> String {
        match &self.builder.password {
            Some(password) => format!("{scheme}://:{password}@127.0.0.1:{port}"),
            None => format!("{scheme}://127.0.0.1:{port}"),
        }
    }

    /// Starts the process on the ports chosen and waits until it answers.
    fn launch(&self) -> Result<(), StartError> {
        let config = self.process.dir().join("redis.conf");
        fs::write(&config, self.config_file())?;
        let mut command = Command::new(&self.builder.binary);
        command.arg(&config).envs(self.builder.env.iter().cloned());
        let pid = self
            .process
            .spawn(&mut command)
            .map_err(|error| self.builder.spawn_error(error))?;
        poll(START_DEADLINE, || match self.process.pid() {
            None => Some(Err(self.builder.failed(&self.process, "it ended"))),
            Some(_) => self.is_ready(pid).then_some(Ok(())),
        })
        .unwrap_or_else(|| Err(self.builder.failed(&self.process, "it does not answer")))?;
        faketime::unlink_shared_memory(pid);
        Ok(())
    }

    /// Whether it is *this* server that answers on the port (another one may have been faster to bind it), and that
    /// it has loaded its data.
    fn is_ready(&self, pid: u32) -> bool {
        self.cli(&["INFO", "server"])
            .is_ok_and(|info| info.contains(&format!("process_id:{pid}\r\n")))
            && self
                .cli(&["INFO", "persistence"])
                .is_ok_and(|info| info.contains("\nloading:0\r\n"))
    }

    fn config_file(&self) -> String {
        let Ports { plain, tls } = self.ports;
        let mut file = format!(
            "bind 127.0.0.1\n\
             port {plain}\n\
             save \"\"\n\
             enable-debug-command yes\n\
             user {CONTROL_USER} on >{} ~* &* +@all\n",
            self.control_password
        );
        if self.builder.persistence {
            file.push_str("appendonly yes\nappendfsync always\n");
        }
        if let Some(password) = &self.builder.password {
            let _ = writeln!(file, "requirepass \"{password}\"");
        }
        if let Some(TlsFiles { ca, cert, key }) = &self.tls {
            let _ = writeln!(file, "tls-port {tls}\ntls-auth-clients no");
            let _ = writeln!(file, "tls-ca-cert-file \"{}\"", ca.display());
            let _ = writeln!(file, "tls-cert-file \"{}\"", cert.display());
            let _ = writeln!(file, "tls-key-file \"{}\"", key.display());
        }
        // Last, so that a test's own settings win.
        file.push_str(&self.builder.config);
        file
    }
}

impl RedisBuilder {
    /// A line of the configuration file. `value` is written as it is, so it carries its own quotes if it needs some.
    pub fn config(mut self, key: &str, value: &str) -> Self {
        let _ = writeln!(self.config, "{key} {value}");
        self
    }

    /// The default user's password.
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// An ACL user as ACL SETUSER takes it: `alice on >secret ~* &* +@all`.
    pub fn acl_user(self, line: &str) -> Self {
        self.config("user", line)
    }

    /// With `true`, every write is on disk before it is answered, and a restart finds it. Defaults to `false`.
    pub fn persistence(mut self, on: bool) -> Self {
        self.persistence = on;
        self
    }

    /// Also listens on a TLS port, with a certificate for `localhost` and 127.0.0.1 by an authority made for it.
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Another server binary. Defaults to `redis-server` from the path.
    pub fn binary(mut self, path: impl Into<PathBuf>) -> Self {
        self.binary = path.into();
        self
    }

    /// An environment variable for the server process.
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((key.into(), value.into()));
        self
    }

    /// What the server is called in messages and in `LOCK_TEST_ALLOW_MISSING`, and how it is installed.
    pub(super) fn named(mut self, name: &'static str, install: &'static str) -> Self {
        self.name = name;
        self.install = install;
        self
    }

    /// A file that lies in the server's directory before its first start.
    pub(super) fn file(mut self, name: &'static str, content: &str) -> Self {
        self.files.push((name, content.to_owned()));
        self
    }

    /// Starts it.
    ///
    /// # Panics
    /// If the binary is missing or the server does not start.
    #[must_use]
    pub fn start(self) -> RedisServer {
        self.try_start().unwrap_or_else(|error| panic!("{error}"))
    }

    /// Starts it; `None`, said loudly, if it is missing and `LOCK_TEST_ALLOW_MISSING` names it.
    ///
    /// # Panics
    /// If the binary is missing and must not be, or the server does not start.
    #[must_use]
    pub fn start_or_skip(self) -> Option<RedisServer> {
        skip_if_allowed(self.name, self.try_start())
    }

    /// Starts it.
    ///
    /// # Errors
    /// [`StartError::Missing`] when there is no such binary; otherwise why it did not start.
    pub fn try_start(self) -> Result<RedisServer, StartError> {
        let mut attempts_left = 10;
        loop {
            attempts_left -= 1;
            let server = self.prepare()?;
            match server.launch() {
                Ok(()) => return Ok(server),
                // Somebody was faster to bind the port; the next attempt picks another.
                Err(_) if server.lost_its_port() && attempts_left > 0 => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn prepare(&self) -> Result<RedisServer, StartError> {
        let process = ServerProcess::new(&format!("distlock-{}-", self.name))?;
        for (name, content) in &self.files {
            fs::write(process.dir().join(name), content)?;
        }
        let tls = match self.tls {
            true => {
                let files = tls::generate(process.dir());
                Some(files.map_err(|error| self.failed(&process, &error.to_string()))?)
            }
            false => None,
        };
        Ok(RedisServer {
            process,
            builder: self.clone(),
            control_password: format!("{:032x}", fastrand::u128(..)),
            ports: Ports {
                plain: free_port(),
                tls: free_port(),
            },
            tls,
            control: Mutex::default(),
        })
    }

    fn spawn_error(&self, error: io::Error) -> StartError {
        match error.kind() {
            io::ErrorKind::NotFound => StartError::Missing {
                what: self.binary.display().to_string(),
                install: self.install,
            },
            _ => StartError::Io(error),
        }
    }

    fn failed(&self, process: &ServerProcess, why: &str) -> StartError {
        StartError::Failed {
            what: self.binary.display().to_string(),
            why: format!("{why}\n{}", process.log_tail()),
        }
    }
}

impl RedisServer {
    fn lost_its_port(&self) -> bool {
        self.process.log_tail().contains("Address already in use")
    }
}

fn parse_commandstats(info: &str) -> BTreeMap<String, u64> {
    info.lines()
        .filter_map(|line| {
            let (command, stats) = line.strip_prefix("cmdstat_")?.split_once(':')?;
            let calls = stats.strip_prefix("calls=")?.split(',').next()?;
            Some((command.to_owned(), calls.parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commandstats_are_read_by_command() {
        let info = "# Commandstats\r\ncmdstat_get:calls=3,usec=4,usec_per_call=1.00\r\n\
                    cmdstat_config|get:calls=1,usec=9\r\n";
        let stats = parse_commandstats(info);
        assert_eq!(stats["get"], 3);
        assert_eq!(stats["config|get"], 1);
        assert_eq!(stats.len(), 2);
    }
}
