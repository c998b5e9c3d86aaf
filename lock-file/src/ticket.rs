//! Who waits, for those who look. Nothing is decided by it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lock_core::{Claim, LockName, Nonce, WaiterState};
use nix::libc::ELOOP;
use serde::{Deserialize, Serialize};

use crate::dir;
use crate::file::LockFile;
use crate::name::{file_name, is_lock};
use crate::record;
use crate::token::wall_micros;

/// In a directory of their own, so that coming and going does not wake who watches the locks.
pub(crate) const DIR: &str = ".waiting";
const MODE: u32 = 0o644;

/// A waiter's file, locked for as long as it waits: the kernel says who has died.
#[derive(Debug)]
pub(crate) struct Ticket(LockFile);

#[derive(Deserialize, Serialize)]
struct Waiter {
    nonce: String,
    identity: String,
    /// Wall clock, µs since 1970.
    since: u64,
}

impl Ticket {
    pub(crate) fn new(locks: &Path, claim: &Claim) -> io::Result<Self> {
        let dir = locks.join(DIR);
        if !is_there(&dir)? {
            dir::make_like(&dir, locks)?;
        }
        let path = dir.join(format!("{}{}", start(&claim.name), claim.nonce));
        let ticket = Self(LockFile::open(&path, MODE)?);
        ticket.0.try_lock()?;
        let waiter = Waiter {
            nonce: claim.nonce.to_string(),
            identity: claim.identity.to_string(),
            since: wall_micros(),
        };
        record::write(ticket.0.file(), &waiter)?;
        Ok(ticket)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // Left behind, it is unlocked, counts for nothing and is swept.
        let _ = fs::remove_file(self.0.path());
    }
}

/// Whether anybody waits for `name`. A ticket that cannot be read, such as one of another user with a strict
/// umask, may be of somebody who does.
pub(crate) fn anybody_waits(locks: &Path, name: &LockName) -> io::Result<bool> {
    let tickets = tickets(locks, name)?;
    Ok(tickets
        .iter()
        .any(|ticket| !matches!(read(ticket), Ok(None))))
}

/// Who waits for `name`, in the order of their coming.
pub(crate) fn waiters(locks: &Path, name: &LockName) -> io::Result<Vec<WaiterState>> {
    let mut waiters: Vec<(u64, WaiterState)> = tickets(locks, name)?
        .iter()
        .filter_map(|ticket| read(ticket).ok().flatten())
        .collect();
    waiters.sort_by_key(|(since, _)| *since);
    Ok(waiters.into_iter().map(|(_, waiter)| waiter).collect())
}

fn tickets(locks: &Path, name: &LockName) -> io::Result<Vec<PathBuf>> {
    let start = start(name);
    let mut tickets = all(locks)?;
    tickets.retain(|path| {
        path.file_name()
            .and_then(|file| file.to_str())
            .is_some_and(|file| file.starts_with(&start))
    });
    Ok(tickets)
}

/// Removes what waiters that died have left.
pub(crate) fn sweep(locks: &Path) -> io::Result<usize> {
    let mut removed = 0;
    for path in all(locks)?.iter().filter(|path| is_ticket(path)) {
        // One that is just being made is not locked yet; its waiter is then not seen, and waits all the same.
        let dead = matches!(LockFile::open_existing(path, true), Ok(Some(file)) if file.try_lock_to_sweep().unwrap_or(false));
        if dead && fs::remove_file(path).is_ok() {
            removed += 1;
        }
    }
    Ok(removed)
}

/// What the tickets for a lock begin with. A nonce of fixed length follows, so that no name is the
/// beginning of another.
fn start(name: &LockName) -> String {
    format!("{}.", file_name(name))
}

/// Whether a file was made by [`Ticket::new`]: nothing else is ever removed.
fn is_ticket(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let parts = name.and_then(|name| name.rsplit_once('.'));
    parts.is_some_and(|(lock, nonce)| is_lock(lock) && nonce.parse::<Nonce>().is_ok())
}

/// Whether there is a directory of tickets. A link is refused: where others may write, it could lead to
/// any directory.
fn is_there(dir: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(dir) {
        Ok(found) if found.is_dir() => Ok(true),
        Ok(_) => Err(io::Error::from_raw_os_error(ELOOP)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn all(locks: &Path) -> io::Result<Vec<PathBuf>> {
    let dir = locks.join(DIR);
    match is_there(&dir)? {
        true => fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect(),
        false => Ok(Vec::new()),
    }
}

fn read(path: &Path) -> io::Result<Option<(u64, WaiterState)>> {
    let Some(file) = LockFile::open_existing(path, false)? else {
        return Ok(None);
    };
    if !file.is_held_elsewhere()? {
        return Ok(None);
    }
    let waiter: Waiter = serde_json::from_slice(&record::content(file.file())?)?;
    let state = (|| {
        Some(WaiterState {
            nonce: waiter.nonce.parse().ok()?,
            identity: waiter.identity.parse().ok()?,
            age: Duration::from_micros(wall_micros().saturating_sub(waiter.since)),
        })
    })();
    Ok(state.map(|state| (waiter.since, state)))
}

#[cfg(test)]
mod tests {
    use lock_core::Identity;

    use super::*;

    fn claim(name: &str) -> Claim {
        let name = LockName::new(name).expect("a good name");
        Claim::new(name, Identity::of_this_process("x"), Duration::from_secs(1))
    }

    #[test]
    fn waiters_are_seen_while_they_wait_and_only_for_their_lock() {
        let dir = tempfile::tempdir().expect("a directory");
        let (a, b, other) = (claim("n"), claim("n"), claim("n.lock"));
        let seen = |of: &Claim| {
            let waiters = waiters(dir.path(), &of.name).expect("reads");
            waiters
                .into_iter()
                .map(|waiter| waiter.nonce)
                .collect::<Vec<_>>()
        };
        assert!(seen(&a).is_empty());
        let first = Ticket::new(dir.path(), &a).expect("a ticket");
        let second = Ticket::new(dir.path(), &b).expect("a ticket");
        let third = Ticket::new(dir.path(), &other).expect("a ticket");
        assert_eq!(seen(&a), [a.nonce, b.nonce]);
        assert_eq!(seen(&other), [other.nonce]);
        assert_eq!(sweep(dir.path()).expect("sweeps"), 0, "all are alive");
        drop((first, second, third));
        assert!(seen(&a).is_empty());
        assert!(all(dir.path()).expect("reads").is_empty());
    }

    #[test]
    fn what_a_dead_waiter_leaves_is_not_seen_and_is_swept() {
        let dir = tempfile::tempdir().expect("a directory");
        let a = claim("n");
        let ticket = Ticket::new(dir.path(), &a).expect("a ticket");
        ticket.0.unlock().expect("unlocks");
        assert!(waiters(dir.path(), &a.name).expect("reads").is_empty());
        assert_eq!(sweep(dir.path()).expect("sweeps"), 1);
        assert!(all(dir.path()).expect("reads").is_empty());
    }

    #[test]
    fn nothing_but_tickets_is_swept() {
        let dir = tempfile::tempdir().expect("a directory");
        let a = claim("n");
        drop(Ticket::new(dir.path(), &a).expect("a ticket"));
        let waiting = dir.path().join(DIR);
        let torn = waiting.join(format!("{}{}", start(&a.name), a.nonce));
        let others = ["notes", "n.lock", "n.lock.old", "notes.txt"].map(|name| waiting.join(name));
        for file in others.iter().chain([&torn]) {
            fs::write(file, "").expect("writes");
        }
        assert_eq!(sweep(dir.path()).expect("sweeps"), 1);
        assert!(!torn.exists() && others.iter().all(|file| file.exists()));
    }

    #[test]
    fn link_to_another_directory_is_not_followed() {
        let (dir, elsewhere) = (tempfile::tempdir(), tempfile::tempdir());
        let (dir, elsewhere) = (dir.expect("a directory"), elsewhere.expect("a directory"));
        let precious = elsewhere
            .path()
            .join("n.lock.00000000000000000000000000000001");
        fs::write(&precious, "").expect("writes");
        std::os::unix::fs::symlink(elsewhere.path(), dir.path().join(DIR)).expect("links");
        sweep(dir.path()).expect_err("refused");
        Ticket::new(dir.path(), &claim("n")).expect_err("refused");
        assert!(precious.exists());
    }
}
