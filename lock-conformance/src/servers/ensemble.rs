//! The members of one service.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::error::StartError;
use super::firewall::Firewall;
use super::member::Member;

/// All members of one service: one, or several that need a majority of them to serve.
///
/// What is said of the service without naming a member concerns all of them.
#[derive(Debug)]
pub struct Ensemble {
    members: Vec<Member>,
    firewall: Option<Firewall>,
    isolated: Mutex<BTreeSet<usize>>,
}

impl Ensemble {
    /// Prepares and starts members, anew with other ports as often as somebody else is faster to take one.
    ///
    /// With `isolatable`, each member has an [`Identity`](super::firewall::Identity).
    pub(super) fn start<T>(
        isolatable: bool,
        prepare: impl Fn() -> Result<(Vec<Member>, T), StartError>,
    ) -> Result<(Ensemble, T), StartError> {
        let mut attempts_left = 10;
        loop {
            attempts_left -= 1;
            // Before the members: it fails where this process has not the right to make them other users.
            let firewall = isolatable.then(Firewall::new).transpose()?;
            let (members, more) = prepare()?;
            let ensemble = Ensemble {
                members,
                firewall,
                isolated: Mutex::default(),
            };
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

    /// Cuts a member off from the others: no packet passes between them. Clients reach it as before.
    ///
    /// # Panics
    /// If the service was not started as `isolatable`, or has no such member.
    pub fn isolate(&self, member: usize) {
        let identity = |i: usize| self.members[i].identity().expect("started as isolatable");
        let others: Vec<u16> = (0..self.members.len())
            .filter(|&i| i != member)
            .flat_map(|i| identity(i).ports.iter().copied())
            .collect();
        if self.isolated().insert(member) {
            let done = self.firewall().isolate(identity(member), &others);
            done.expect("rules can be set");
        }
    }

    /// Ends [`isolate`](Self::isolate). What was sent meanwhile may arrive, as after a partition.
    ///
    /// # Panics
    /// If the service was not started as `isolatable`, or has no such member.
    pub fn heal(&self, member: usize) {
        let identity = self.members[member].identity();
        if self.isolated().remove(&member) {
            let done = self.firewall().heal(identity.expect("it was isolated"));
            done.expect("rules can be taken back");
        }
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

    /// The members that can be expected to serve: they run, are not paused, and are not cut off.
    pub(super) fn reachable(&self) -> Vec<usize> {
        let isolated = self.isolated();
        (0..self.members.len())
            .filter(|i| self.members[*i].is_awake() && !isolated.contains(i))
            .collect()
    }

    fn isolated(&self) -> MutexGuard<'_, BTreeSet<usize>> {
        self.isolated.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn firewall(&self) -> &Firewall {
        self.firewall.as_ref().expect("started as isolatable")
    }
}
