//! Histories by hand.

use std::time::Duration;

use super::event::{Event, Hits, Left, Loss, Refusal, Trouble, What};
use super::record::{Record, Stood};
use super::{Terms, Violation};

pub(super) const NAME: &str = "n";

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(super) fn event(at: u64, who: &str, what: What) -> Event {
    Event {
        at: ms(at),
        who: who.to_owned(),
        name: NAME.to_owned(),
        what,
    }
}

pub(super) fn asks(at: u64, who: &str) -> Event {
    event(at, who, What::Asked { waits: true })
}

pub(super) fn tries(at: u64, who: &str) -> Event {
    event(at, who, What::Asked { waits: false })
}

pub(super) fn granted(asked: u64, at: u64, who: &str, token: u64) -> Event {
    let asked = ms(asked);
    event(at, who, What::Granted { asked, token })
}

pub(super) fn refused(asked: u64, at: u64, who: &str, why: Refusal) -> Event {
    let asked = ms(asked);
    event(at, who, What::Refused { asked, why })
}

pub(super) fn queued(looked: u64, at: u64, who: &str) -> Event {
    let looked = ms(looked);
    event(at, who, What::Queued { looked })
}

pub(super) fn leased(at: u64, who: &str, token: u64, ttl: u64, kept: bool) -> Event {
    let ttl = ms(ttl);
    event(at, who, What::Leased { token, ttl, kept })
}

pub(super) fn shown(at: u64, who: &str, token: u64, until: u64) -> Event {
    let until = ms(until);
    event(at, who, What::Shown { token, until })
}

pub(super) fn checked(began: u64, at: u64, who: &str, token: u64, valid: bool) -> Event {
    let began = ms(began);
    event(
        at,
        who,
        What::Checked {
            began,
            token,
            valid,
        },
    )
}

pub(super) fn releasing(at: u64, who: &str, token: u64) -> Event {
    event(at, who, What::Releasing { token })
}

pub(super) fn released(at: u64, who: &str, token: u64, how: Left) -> Event {
    event(at, who, What::Released { token, how })
}

/// Both ends of a clean release.
pub(super) fn clean(from: u64, to: u64, who: &str, token: u64) -> [Event; 2] {
    [
        releasing(from, who, token),
        released(to, who, token, Left::Clean),
    ]
}

pub(super) fn lost(at: u64, who: &str, token: u64, why: Loss) -> Event {
    event(at, who, What::Lost { token, why })
}

pub(super) fn wrote(at: u64, token: u64, value: u64, accepted: bool) -> Event {
    event(
        at,
        "resource",
        What::Wrote {
            token,
            value,
            accepted,
        },
    )
}

pub(super) fn rest(at: u64, holders: usize, waiters: usize, free: bool) -> Event {
    event(
        at,
        "suite",
        What::Rest {
            holders,
            waiters,
            free,
        },
    )
}

pub(super) fn trouble(at: u64, who: &str, trouble: Trouble) -> Event {
    event(at, who, What::Trouble(trouble))
}

/// The server breaks down, for everybody.
pub(super) fn broke_down(at: u64) -> Event {
    let what = "server stopped".to_owned();
    let hits = Hits::Everybody;
    trouble(at, "faults", Trouble::Began { what, hits })
}

/// The connections of these are cut.
pub(super) fn began_to_be_cut(at: u64, who: &[&str]) -> Event {
    let what = "connections cut".to_owned();
    let hits = Hits::These(who.iter().map(|who| (*who).to_owned()).collect());
    trouble(at, "faults", Trouble::Began { what, hits })
}

pub(super) fn healed(at: u64) -> Event {
    trouble(at, "faults", Trouble::Healed(String::new()))
}

pub(super) fn began(token: u64) -> Record {
    record(token, Stood::Began)
}

pub(super) fn ended(token: u64) -> Record {
    record(token, Stood::Ended)
}

fn record(token: u64, what: Stood) -> Record {
    Record {
        name: NAME.to_owned(),
        token,
        what,
    }
}

pub(super) fn terms() -> Terms {
    Terms {
        fenced: true,
        fifo: true,
        progress: ms(1000),
        prompt: ms(1000),
        recovery: ms(100),
        op_timeout: ms(1000),
        kept_ttl: ms(300),
        lateness: Duration::ZERO,
    }
}

#[track_caller]
pub(super) fn violated(result: Result<(), Violation>) -> &'static str {
    result.expect_err("a bad history").property
}
