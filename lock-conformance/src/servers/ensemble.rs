//! The members of one service.

use std::io;
use std::net::SocketAddr;

use super::error::StartError;
use super::member::Member;

/// All members of one service: one, or several that need a majority of them to serve.
///
/// What is said of the service without naming a member concerns all of them.
#[derive(Debug)]
pub struct Ensemble {
    members: Vec<Member>,
}

impl Ensemble {
    /// Prepares and starts members, anew with other ports as often as somebody else is faster to take one.
    pub(super) fn start<T>(
        prepare: impl Fn() -> Result<(Vec<Member>, T), StartError>,
    ) -> Result<(Ensemble, T), StartError> {
        let mut attempts_left = 10;
        loop {
            attempts_left -= 1;
            let (members, more) = prepare()?;
            let ensemble = Ensemble { members };
            match ensemble.launch() {
                Ok(()) => return Ok((ensemble, more)),
                Err(_) if ensemble.members.iter().any(Member::lost_a_port) && attempts_left > 0 => {
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The members, in the order in which methods number them.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// One member.
    ///
    /// # Panics
    /// If there are not that many.
    #[must_use]
    pub fn member(&self, index: usize) -> &Member {
        &self.members[index]
    }

    /// Where clients of the first member connect.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.members[0].port()
    }

    /// Where clients of the first member connect.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.members[0].addr()
    }

    /// Where clients connect, one for each member: `127.0.0.1:PORT`.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        let addrs = self.members.iter().map(Member::addr);
        addrs.map(|addr| addr.to_string()).collect()
    }

    /// SIGKILL for every member. The data stays for a restart.
    pub fn kill(&self) {
        self.members.iter().for_each(Member::kill);
    }

    /// Starts every member again on the same ports and with the same data, and waits until all serve.
    ///
    /// # Panics
    /// If one does not start.
    pub fn restart(&self) {
        self.launch().unwrap_or_else(|error| panic!("{error}"));
    }

    /// SIGSTOP for every member.
    ///
    /// # Panics
    /// If one does not run.
    pub fn pause(&self) {
        self.members.iter().for_each(Member::pause);
    }

    /// SIGCONT for every member.
    ///
    /// # Panics
    /// If one does not run.
    pub fn resume(&self) {
        self.members.iter().for_each(Member::resume);
    }

    /// Client connections that all members together have right now, as the kernel counts them.
    ///
    /// # Errors
    /// The machine does not tell.
    pub fn connections(&self) -> io::Result<usize> {
        self.members.iter().map(Member::connections).sum()
    }

    /// Stops the whole service before a start, so that no member goes on with the old ones in memory.
    fn launch(&self) -> Result<(), StartError> {
        self.kill();
        self.members.iter().try_for_each(Member::spawn)?;
        self.members.iter().try_for_each(Member::wait)
    }
}
