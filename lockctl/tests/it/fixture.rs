//! What the tests stand on: the binary, a place, processes that are waited for with a deadline.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use distlock::Clock;
#[cfg(feature = "etcd")]
use lock_conformance::servers::EtcdServer;
use lock_conformance::servers::{RedisServer, ZooKeeperServer};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

/// The longest that anything may take which should be there at once. It only matters when something is
/// broken, or the machine is very busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(2);

/// Options for tests that wait for the end of a lock.
pub(crate) const SHORT: &str = "--ttl 2s --kill-after 500ms";

/// Says who it is, ends itself on SIGTERM and leaves a note.
pub(crate) const OBEDIENT: &str = "exec 2> /dev/null; trap 'echo yes > asked; exit 0' TERM; echo $LOCK_TOKEN > token; \
                        echo $$ > pid; while :; do sleep 0.02; done";
/// The same, and has to be killed.
pub(crate) const STUBBORN: &str = "exec 2> /dev/null; trap 'echo yes > asked' TERM; echo $LOCK_TOKEN > token; echo $$ > pid; \
                        while :; do sleep 0.02; done";
/// A child in the background, in the same group, and one that does not listen to SIGTERM.
pub(crate) const FAMILY: &str = "trap '' TERM; sleep 300 & echo $! > inner; echo $$ > outer; wait";

/// A backend under a URL, and a directory.
pub(crate) struct Place {
    pub(crate) url: String,
    pub(crate) dir: TempDir,
    server: Server,
}

/// What runs under a URL, for as long as the place is there.
enum Server {
    None,
    Redis(Box<RedisServer>),
    #[cfg(feature = "etcd")]
    Etcd(Box<EtcdServer>),
    ZooKeeper(Box<ZooKeeperServer>),
}

impl Place {
    /// A Redis of its own.
    pub(crate) fn redis() -> Self {
        let server = RedisServer::start();
        Self::of(server.url(), Server::Redis(Box::new(server)))
    }

    /// An etcd of its own; `None` where etcd is missing and may be.
    #[cfg(feature = "etcd")]
    pub(crate) fn etcd() -> Option<Self> {
        let server = EtcdServer::start_or_skip()?;
        Some(Self::of(server.url(), Server::Etcd(Box::new(server))))
    }

    /// A ZooKeeper of its own, with these options; `None` where ZooKeeper is missing and may be.
    pub(crate) fn zookeeper(options: &str) -> Option<Self> {
        let server = ZooKeeperServer::start_or_skip()?;
        let url = format!("{}{options}", server.url());
        Some(Self::of(url, Server::ZooKeeper(Box::new(server))))
    }

    fn of(url: String, server: Server) -> Self {
        Self {
            url,
            dir: TempDir::new().expect("a directory"),
            server,
        }
    }

    /// A directory of its own.
    pub(crate) fn file() -> Self {
        let dir = TempDir::new().expect("a directory");
        Self {
            url: format!("file://{}", dir.path().join("locks").display()),
            dir,
            server: Server::None,
        }
    }

    pub(crate) fn redis_server(&self) -> &RedisServer {
        match &self.server {
            Server::Redis(server) => server,
            _ => panic!("this place has no Redis"),
        }
    }

    pub(crate) fn kill_server(&self) {
        match &self.server {
            Server::None => panic!("this place has no server"),
            Server::Redis(server) => server.kill(),
            #[cfg(feature = "etcd")]
            Server::Etcd(server) => server.kill(),
            Server::ZooKeeper(server) => server.kill(),
        }
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    /// The content of a file, once it has some.
    pub(crate) fn content(&self, file: &str) -> String {
        let path = self.path(file);
        eventually(&format!("{file} has content"), || {
            fs::read_to_string(&path)
                .ok()
                .filter(|text| text.ends_with('\n'))
        })
        .trim_end()
        .to_owned()
    }

    pub(crate) fn pid(&self, file: &str) -> u32 {
        self.content(file).parse().expect("a process id")
    }

    pub(crate) fn number(&self, file: &str) -> u64 {
        self.content(file).parse().expect("a number")
    }

    /// lockctl with these words, in the directory of this place, talking to its backend.
    pub(crate) fn lockctl(&self, words: &str) -> Command {
        let mut command = lockctl(words);
        command.env("LOCK_URL", &self.url).current_dir(&self.dir);
        command
    }

    /// `lockctl run WORDS -- sh -c SCRIPT`.
    pub(crate) fn script(&self, words: &str, script: &str) -> Command {
        let mut command = self.lockctl("run");
        command
            .args(words.split(' '))
            .args(["--", "sh", "-c", script]);
        command
    }

    /// Compiles one of the helpers into this place.
    pub(crate) fn compile(&self, helper: &str) {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/helpers");
        let done = finish(
            Command::new("rustc")
                .args(["--edition", "2024", "-o", helper])
                .arg(sources.join(helper).with_extension("rs"))
                .current_dir(&self.dir),
        );
        assert_eq!(done.code, 0, "{done:?}");
    }

    pub(crate) fn status(&self, name: &str) -> Value {
        let done = Job::start(&mut self.lockctl(&format!("--format json status {name}"))).finish();
        assert_eq!(done.code, 0, "{done:?}");
        serde_json::from_str(&done.stdout).expect("JSON")
    }
}

/// lockctl with these words, and nothing of this process's environment that it would read.
pub(crate) fn lockctl(words: &str) -> Command {
    // Whoever runs the tests may ignore hangups, as under nohup; what is ignored stays so, also in lockctl.
    let mut command = Command::new("env");
    command
        .args([
            "--default-signal=HUP,INT,QUIT",
            env!("CARGO_BIN_EXE_lockctl"),
        ])
        .args(words.split(' ').filter(|word| !word.is_empty()))
        .env_remove("LOCK_URL")
        .stdin(Stdio::null());
    command
}

/// A process that is killed when its test is over.
pub(crate) struct Job {
    child: Child,
    /// Files, not pipes: what a broken guardian leaves running must not keep a test from its end.
    output: TempDir,
}

/// What a process that has ended has said.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Job {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self::start_with(command, None)
    }

    /// Starts it with a standard error of its own, which is not read.
    pub(crate) fn start_with(command: &mut Command, stderr: Option<Stdio>) -> Self {
        let output = TempDir::new().expect("a directory");
        let file = |name| File::create(output.path().join(name)).expect("a file");
        let to_file = file("stderr");
        let child = command
            .stdout(file("stdout"))
            .stderr(stderr.unwrap_or_else(|| to_file.into()))
            .spawn()
            .expect("it starts");
        Self { child, output }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Types something, where standard input is piped; the end of it comes with that of the job.
    pub(crate) fn type_in(&mut self, keys: &str) {
        let stdin = self.child.stdin.as_mut().expect("piped");
        stdin.write_all(keys.as_bytes()).expect("it reads");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        signal_to(self.pid(), signal);
    }

    /// Waits for its end.
    pub(crate) fn finish(mut self) -> Finished {
        let status = eventually("lockctl ends", || {
            self.child.try_wait().expect("it is our child")
        });
        self.finished(status)
    }

    fn finished(&self, status: ExitStatus) -> Finished {
        let read = |name: &str| {
            let text = fs::read(self.output.path().join(name)).expect("written");
            String::from_utf8_lossy(&text).into_owned()
        };
        Finished {
            // What a test killed has no code.
            code: status.code().unwrap_or(-1),
            stdout: read("stdout"),
            stderr: read("stderr"),
        }
    }

    /// The guardian of this job, once it has one.
    pub(crate) fn guardian(&self) -> u32 {
        eventually("there is a guardian", || {
            children(self.pid()).into_iter().find(|&child| {
                let line = fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
                String::from_utf8_lossy(&line).contains("__guardian")
            })
        })
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // It may have ended long ago.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs it to its end.
pub(crate) fn finish(command: &mut Command) -> Finished {
    Job::start(command).finish()
}

impl Finished {
    /// The one line that there has to be, and the code.
    #[track_caller]
    pub(crate) fn failed_with(&self, code: i32, part: &str) {
        assert_eq!(self.code, code, "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "{self:?}");
        assert!(self.stderr.starts_with("lockctl: "), "{self:?}");
        assert!(self.stderr.contains(part), "{part:?} in {self:?}");
        assert!(!self.stderr.contains("panicked"), "{self:?}");
    }
}

/// Looks again and again until there is something; a test fails when that takes too long.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, probe)
}

#[track_caller]
pub(crate) fn within<T>(limit: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let clock = Clock::system();
    let deadline = clock.now() + limit;
    loop {
        // Read before the probe: what is there in time counts, however late it is looked at.
        let now = clock.now();
        if let Some(found) = probe() {
            return found;
        }
        assert!(now < deadline, "not within {limit:?}: {what}");
        thread::sleep(PAUSE);
    }
}

/// How long `work` takes.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let clock = Clock::system();
    let began = clock.now();
    let done = work();
    (done, clock.now().saturating_since(began))
}

/// Whether this process runs: a dead one that nobody has waited for does not.
pub(crate) fn is_alive(pid: u32) -> bool {
    // A zombie with threads has lost its first one only.
    let threads = || stat(pid).and_then(|stat| stat.split(' ').nth(17)?.parse::<u32>().ok());
    match state(pid) {
        None | Some('X') => false,
        Some('Z') => threads() > Some(1),
        Some(_) => true,
    }
}

/// The letter by which `ps` shows what a process does.
pub(crate) fn state(pid: u32) -> Option<char> {
    stat(pid)?.chars().next()
}

/// What the kernel says about a process behind its name.
fn stat(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(") ")?.1.to_owned())
}

pub(crate) fn is_gone_within(limit: Duration, pid: u32) {
    within(limit, "the process is gone", || {
        (!is_alive(pid)).then_some(())
    });
}

pub(crate) fn signal_to(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).expect("a process id");
    kill(Pid::from_raw(pid), signal).expect("it is there");
}

/// The processes that `parent` has started and that are still its own.
pub(crate) fn children(parent: u32) -> Vec<u32> {
    let of_parent = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit_once(") ").map(|(_, rest)| rest.to_owned());
        fields.is_some_and(|rest| rest.split(' ').nth(1) == Some(&parent.to_string()))
    };
    pids().into_iter().filter(of_parent).collect()
}

/// The processes whose command line contains `text`.
pub(crate) fn running(text: &str) -> Vec<u32> {
    let shows =
        |pid: &u32| String::from_utf8_lossy(&command_line(*pid)).contains(text) && is_alive(*pid);
    pids().into_iter().filter(shows).collect()
}

/// The arguments of a process. One that is just becoming another program shows none for a moment; threads of
/// the kernel, which are no file's program, never do.
fn command_line(pid: u32) -> Vec<u8> {
    loop {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let has_program = fs::read_link(format!("/proc/{pid}/exe")).is_ok();
        if !line.is_empty() || !has_program || !is_alive(pid) {
            return line;
        }
        thread::sleep(PAUSE);
    }
}

fn pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("Linux").flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// Whether this file has anything in it.
pub(crate) fn is_written(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.len() > 0)
}
