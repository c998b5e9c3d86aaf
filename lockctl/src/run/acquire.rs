//! Getting the lock, whole.

use std::time::Duration;

use distlock::{Capabilities, Clock, CrashRelease, Guard, Locks};

use crate::cli::RunArgs;
use crate::exit::{self, Failure};
use crate::output::age;

/// How long a renewal that is due may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a backend may take to say that it is there.
const LAST_QUESTION: Duration = Duration::from_millis(300);
/// How soon it is tried again.
const PAUSE: Duration = Duration::from_millis(50);

/// Gets the lock within the time that the command line allows.
pub(crate) async fn acquire(
    locks: &Locks,
    args: &RunArgs,
    ttl: Duration,
) -> Result<Guard, Failure> {
    refuse_modes(locks, args)?;
    let lease = lease(&locks.capabilities(), ttl);
    refuse_grace(locks, args.kill_after, lease)?;
    let mutex = locks.mutex(&args.name).ttl(ttl);
    let (guard, busy) = match (args.at_once, args.wait) {
        (true, _) => (mutex.try_acquire().await?, "is not free".to_owned()),
        (false, Some(wait)) => (
            mutex.acquire_within(wait).await?,
            format!("was not free within {}", humantime::format_duration(wait)),
        ),
        (false, None) => (Some(mutex.acquire().await?), String::new()),
    };
    let Some(guard) = guard else {
        let busy = format!("the lock {:?} {busy}", args.name);
        return Err(in_vain(locks, args, busy).await);
    };
    match make_whole(&guard, args, lease).await {
        Ok(()) => Ok(guard),
        Err(failure) => {
            // What became of it is not of interest any more.
            let _ = guard.release().await;
            Err(failure)
        }
    }
}

/// Why a wait ended without the lock: who waits in a queue does not hear that the backend has gone.
async fn in_vain(locks: &Locks, args: &RunArgs, busy: String) -> Failure {
    let asked = match args.at_once {
        // It has just answered.
        true => return Failure::new(exit::BUSY, busy),
        false => locks.inspect(&args.name),
    };
    let answer = Clock::system().timeout(LAST_QUESTION, asked).await;
    let why = match answer {
        Some(Err(error)) if error.is_retryable() => Failure::from(error).to_string(),
        // Whatever it says, it is there.
        Some(_) => return Failure::new(exit::BUSY, busy),
        None => "it does not answer".to_owned(),
    };
    Failure::new(
        exit::UNAVAILABLE,
        format!("{busy}; the backend cannot be reached: {why}"),
    )
}

fn refuse_modes(locks: &Locks, args: &RunArgs) -> Result<(), Failure> {
    let asked = match (args.shared, args.permits) {
        (true, _) => "--shared",
        (false, Some(_)) => "--permits",
        (false, None) => return Ok(()),
    };
    let backend = locks.capabilities().backend;
    Err(Failure::usage(format!(
        "{asked}: not supported by this backend: {backend} has exclusive locks only"
    )))
}

/// For how long the backend keeps a lock at a time: the TTL, unless a session that carries every lock
/// has a shorter one; `None` for as long as its process lives.
fn lease(capabilities: &Capabilities, ttl: Duration) -> Option<Duration> {
    capabilities.ttl?;
    let session = capabilities.fixed_ttl.map(|session| session.max);
    let lease = session.map_or(ttl, |session| session.min(ttl));
    Some(match capabilities.crash_release {
        // A session is only confirmed by what comes later in it: of ZooKeeper's, five eighths are left
        // after a renewal.
        CrashRelease::Session => lease / 8 * 5,
        _ => lease,
    })
}

/// Refuses what would leave no time to renew even a lease that was granted just now.
fn refuse_grace(
    locks: &Locks,
    kill_after: Duration,
    lease: Option<Duration>,
) -> Result<(), Failure> {
    let Some(lease) = lease else { return Ok(()) };
    // Clock drift and the way to the server take their part of what is left of it.
    if has_room(lease / 20 * 19, kill_after) {
        return Ok(());
    }
    let mut text = format!(
        "--kill-after {} leaves no time to renew the lock: this backend keeps it for {} at a time",
        humantime::format_duration(kill_after),
        humantime::format_duration(lease)
    );
    if let Some(option) = locks.capabilities().ttl_option {
        text.push_str(&format!("; the option is {option}"));
    }
    Err(Failure::usage(text))
}

/// A hand-off grants a part of the TTL until it is confirmed, and a shared lease or session what is
/// left of it, which may not be renewed before a third of it has passed. A command begins with so much
/// that it is renewed before the command is told to end.
async fn make_whole(guard: &Guard, args: &RunArgs, lease: Option<Duration>) -> Result<(), Failure> {
    let clock = Clock::system();
    if guard.remaining() < guard.ttl() / 4 * 3 {
        guard.renew().await?;
    }
    let patience = PATIENCE + lease.unwrap_or_default() / 3;
    let until = clock.now() + patience;
    while !has_room(guard.remaining(), args.kill_after) {
        if clock.now() >= until {
            let what = "is had, but its lease is not renewed";
            let text = format!("the lock {:?} {what} within {}", args.name, age(patience));
            return Err(Failure::new(exit::UNAVAILABLE, text));
        }
        clock.sleep(PAUSE).await;
        guard.renew().await?;
    }
    Ok(())
}

/// Whether a renewal can come, and be repeated, before the command is told to end: it is due after a
/// third of the lease.
fn has_room(left: Duration, kill_after: Duration) -> bool {
    kill_after < left / 8 * 5
}

#[cfg(test)]
mod tests {
    use distlock::TtlRange;

    use super::*;

    #[test]
    fn grace_has_to_leave_room_for_a_renewal() {
        let ms = Duration::from_millis;
        // What is left of a TTL of 10 s, just granted.
        assert!(has_room(ms(9_880), ms(4_999)));
        assert!(!has_room(ms(2_000), ms(2_000)));
        assert!(has_room(Duration::MAX, ms(4_999)));
    }

    #[test]
    fn session_is_what_a_longer_ttl_comes_to() {
        let range = |max| {
            Some(TtlRange {
                min: Duration::from_secs(1),
                max: Duration::from_secs(max),
                step: Duration::from_secs(1),
            })
        };
        let mut capabilities = Capabilities::least("x");
        let ttl = Duration::from_secs(10);
        assert_eq!(lease(&capabilities, ttl), None);
        capabilities.ttl = range(60);
        assert_eq!(lease(&capabilities, ttl), Some(ttl));
        capabilities.fixed_ttl = range(4);
        assert_eq!(lease(&capabilities, ttl), Some(Duration::from_secs(4)));
        capabilities.crash_release = CrashRelease::Session;
        assert_eq!(
            lease(&capabilities, ttl),
            Some(Duration::from_millis(2_500))
        );
    }
}
