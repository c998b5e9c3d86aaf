//! Getting the lock, whole.

use std::time::Duration;

use distlock::{Guard, Locks};

use crate::cli::RunArgs;
use crate::exit::{self, Failure};

/// Gets the lock within the time that the command line allows.
pub(crate) async fn acquire(
    locks: &Locks,
    args: &RunArgs,
    ttl: Duration,
) -> Result<Guard, Failure> {
    refuse_modes(locks, args)?;
    let mutex = locks.mutex(&args.name).ttl(ttl);
    let (guard, busy) = match (args.at_once, args.wait) {
        (true, _) => (mutex.try_acquire().await?, "is not free".to_owned()),
        (false, Some(wait)) => (
            mutex.acquire_within(wait).await?,
            format!("was not free within {}", humantime::format_duration(wait)),
        ),
        (false, None) => (Some(mutex.acquire().await?), String::new()),
    };
    let guard = guard
        .ok_or_else(|| Failure::new(exit::BUSY, format!("the lock {:?} {busy}", args.name)))?;
    match make_whole(&guard, args.kill_after).await {
        Ok(()) => Ok(guard),
        Err(failure) => {
            // What became of it is not of interest any more.
            let _ = guard.release().await;
            Err(failure)
        }
    }
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

/// A hand-off grants a part of the TTL until it is confirmed, and a shared lease or session what is
/// left of it. A command begins with all of it.
async fn make_whole(guard: &Guard, kill_after: Duration) -> Result<(), Failure> {
    if guard.remaining() < guard.ttl() / 4 * 3 {
        guard.renew().await?;
    }
    let left = guard.remaining();
    if has_room(left, kill_after) {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "--kill-after {} leaves no time to renew the lock: this backend keeps it for {} at a time",
        humantime::format_duration(kill_after),
        humantime::format_duration(Duration::from_millis(crate::output::millis(left)))
    )))
}

/// Whether a renewal can come, and be repeated, before the command is told to end: it is due after a
/// third of the lease.
fn has_room(left: Duration, kill_after: Duration) -> bool {
    kill_after < left / 8 * 5
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grace_has_to_leave_room_for_a_renewal() {
        let ms = Duration::from_millis;
        // What is left of a TTL of 10 s, just granted.
        assert!(has_room(ms(9_880), ms(4_999)));
        assert!(!has_room(ms(2_000), ms(2_000)));
        assert!(has_room(Duration::MAX, ms(4_999)));
    }
}
