//! What clients saw, on one clock, and what must be true of it.
//!
//! Every process of a machine shares the clock that [`lock_core::Clock::system`] reads, so the
//! histories of worker processes can be laid side by side. An [`Event`] is one thing that one client
//! saw or did, or one thing that was done to it ([`Trouble`]); a [`Recorder`] collects them.
//!
//! There is one check for each property, P1 to P10, and one for R1 as clients saw it. They are sound:
//! what a history leaves open is judged for the backend, so that a violation is one whatever happened
//! between the events. [`check_all`] is for histories in which nothing was broken, [`check_workload`]
//! for all others.

mod check;
mod event;
mod hold;
mod record;
mod recorder;
mod request;
#[cfg(test)]
mod sample;
mod shrink;
mod trouble;

pub use self::check::{
    Terms, Violation, check_all, check_bounds, check_calm, check_exclusion, check_foreign_release,
    check_indeterminate, check_loss_before_grant, check_order, check_progress, check_prompt,
    check_record, check_renewal, check_resource, check_rest, check_tokens, check_validity,
    check_workload, lost_updates,
};
pub use self::event::{Event, Hits, Left, Loss, Refusal, Trouble, What};
pub use self::record::{Record, Stood};
pub use self::recorder::Recorder;
pub use self::shrink::shrink;
