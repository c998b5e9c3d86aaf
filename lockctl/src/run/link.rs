//! lockctl's end of the line to its guardian.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use distlock::Clock;
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::deadline::Deadlines;
use super::wire::{Order, Report};
use super::{GUARDIAN, helper};

/// The longest a guardian may take to start, to answer, or to end, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(5);

/// A guardian that runs.
pub(crate) struct Link {
    process: Child,
    reports: Lines<BufReader<OwnedReadHalf>>,
    orders: OwnedWriteHalf,
    clock: Clock,
    /// What the guardian was told last.
    told: Deadlines,
}

impl Link {
    /// Starts a guardian that keeps `file` open, and waits until it is ready.
    ///
    /// # Errors
    /// When it cannot be started, or does not answer.
    pub(crate) async fn start(clock: Clock, file: Option<OwnedFd>) -> io::Result<Self> {
        let (ours, theirs) = StdStream::pair()?;
        ours.set_nonblocking(true)?;
        let process = helper(GUARDIAN)
            .stdin(file.map_or_else(Stdio::null, Stdio::from))
            .stdout(OwnedFd::from(theirs))
            .stderr(Stdio::null())
            .spawn()?;
        let (reports, orders) = UnixStream::from_std(ours)?.into_split();
        let mut link = Self {
            process,
            reports: BufReader::new(reports).lines(),
            orders,
            clock,
            told: Deadlines::default(),
        };
        match link.expect(Report::Ready).await {
            Ok(()) => Ok(link),
            Err(error) => {
                link.dismiss(Duration::ZERO).await;
                Err(error)
            }
        }
    }

    /// Makes `group` the one that is guarded, until `deadlines`, and waits until it is.
    pub(crate) async fn guard(&mut self, group: Pid, deadlines: Deadlines) -> io::Result<()> {
        self.tell(Order::Until(deadlines))?;
        self.told = deadlines;
        self.tell(Order::Guard(group))?;
        self.expect(Report::Guarding).await
    }

    /// Moves the deadlines.
    pub(crate) fn until(&mut self, deadlines: Deadlines) -> io::Result<()> {
        if deadlines != self.told {
            self.tell(Order::Until(deadlines))?;
            self.told = deadlines;
        }
        Ok(())
    }

    /// What the guardian was told last.
    pub(crate) fn told(&self) -> Deadlines {
        self.told
    }

    /// The guardian's process.
    pub(crate) fn pid(&self) -> Option<Pid> {
        i32::try_from(self.process.id()).ok().map(Pid::from_raw)
    }

    /// The next report; `None` when the guardian is gone.
    ///
    /// Cancel safe.
    pub(crate) async fn report(&mut self) -> Option<Report> {
        // Whatever is not a report was not written by a guardian in its right mind.
        let line = self.reports.next_line().await.ok()??;
        line.parse().ok()
    }

    /// Sends the guardian home, the group being gone, and gives what it reported until then. It may stay
    /// for `grace` with what has left the group.
    pub(crate) async fn dismiss(mut self, grace: Duration) -> Vec<Report> {
        let mut last = Vec::new();
        // A guardian that is gone has nothing to be told.
        let _ = self.tell(Order::Done);
        let clock = self.clock.clone();
        let hearing = async {
            while let Some(report) = self.report().await {
                last.push(report);
            }
        };
        if clock.timeout(PATIENCE + grace, hearing).await.is_none() {
            // It was stopped. There is nothing left for it to do.
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
        last
    }

    async fn expect(&mut self, wanted: Report) -> io::Result<()> {
        let clock = self.clock.clone();
        match clock.timeout(PATIENCE, self.report()).await {
            Some(Some(report)) if report == wanted => Ok(()),
            Some(_) => Err(io::Error::other("the guardian died")),
            None => Err(io::Error::other("the guardian does not answer")),
        }
    }

    /// Hands over one line, without waiting: a guardian that has not read for so long that there is
    /// no room for a line does not guard.
    fn tell(&mut self, order: Order) -> io::Result<()> {
        let line = format!("{order}\n");
        match self.orders.try_write(line.as_bytes())? {
            written if written == line.len() => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }
}
