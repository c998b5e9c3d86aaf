//! A watcher that outlives the test process just long enough to clean up after it.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

/// Reads process ids, an empty line for "none"; at end of file kills the last one and removes the directory.
const SCRIPT: &str = r#"pid=
while read -r line; do pid=$line; done
if [ -n "$pid" ]; then kill -9 "$pid"; fi
rm -rf -- "$1"
"#;

/// The same for rules of the packet filter: nothing is killed, and a table that is gone already is no trouble.
const TABLE_SCRIPT: &str = r#"cat >/dev/null
nft delete table inet "$1"
"#;

/// A small `sh` that holds the read end of a pipe whose write end only this process has.
///
/// `Drop` does not run when the test process is killed with SIGKILL. The kernel closes the pipe in that case too, so
/// the guardian sees its end and kills the server. The other way, `setpriv --pdeathsig`, fires when the *thread* that
/// spawned the server ends (the test harness gives each test a thread of its own), exists on Linux only, and leaves the
/// directory behind.
///
/// The process id cannot have been given to another process by then: this process is the server's parent, so a dead
/// server stays a zombie, its id taken, until [`ServerProcess`](super::process::ServerProcess) has told the guardian
/// to forget it and only then reaps it.
#[derive(Debug)]
pub(super) struct Guardian {
    shell: Child,
    pipe: Option<ChildStdin>,
}

impl Guardian {
    /// Starts a guardian for the server that will live in `dir`.
    pub(super) fn start(dir: &Path) -> io::Result<Guardian> {
        Guardian::spawn(SCRIPT, dir.as_os_str())
    }

    /// Starts a guardian that deletes a table of packet filter rules, and has no process to watch.
    pub(super) fn of_table(table: &str) -> io::Result<Guardian> {
        Guardian::spawn(TABLE_SCRIPT, table.as_ref())
    }

    fn spawn(script: &str, subject: &OsStr) -> io::Result<Guardian> {
        let mut shell = Command::new("sh")
            .args(["-c", script, "guardian"])
            .arg(subject)
            .stdin(Stdio::piped())
            // Not inherited: whoever reads the test's output must see its end even if a guardian is still at work.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Away from a Ctrl-C at the terminal, which would end the guardian before it has done its work.
            .process_group(0)
            .spawn()?;
        let pipe = shell.stdin.take();
        Ok(Guardian { shell, pipe })
    }

    /// Makes `pid` the process to kill.
    pub(super) fn watch(&mut self, pid: u32) -> io::Result<()> {
        self.tell(&format!("{pid}\n"))
    }

    /// Forgets the process, which is dead but not yet reaped.
    pub(super) fn forget(&mut self) -> io::Result<()> {
        self.tell("\n")
    }

    fn tell(&mut self, line: &str) -> io::Result<()> {
        match &mut self.pipe {
            Some(pipe) => pipe.write_all(line.as_bytes()),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        // Killed first, and the pipe closed afterwards: the owner removes the directory itself.
        let _ = self.shell.kill();
        let _ = self.shell.wait();
        self.pipe = None;
    }
}
