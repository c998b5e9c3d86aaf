//! What is drawn, by a seed that differs from run to run and is said by a case that fails: seeded workloads as
//! cases, some seconds of each kind, and the moments of other cases.

use super::prelude::*;
use crate::resource::Fencing;
use crate::workload::{Kind, Plan, Setting, run, seed};

/// For how long clients keep asking.
const LENGTH: Duration = Duration::from_millis(2000);

/// Runs the workload and checks its history.
pub(super) async fn run_seeded(s: Stand, kind: Kind) -> Check {
    run_with(&s, kind, Fencing::Checked).await
}

/// Runs the workload without a fence, which has to show.
pub(super) async fn run_unfenced(s: Stand, kind: Kind) -> Check {
    run_with(&s, kind, Fencing::Ignored).await?;
    let lost = history::lost_updates(&s.recorder().events());
    ensure(
        lost > 0,
        "nobody looked at tokens, and yet no update was lost",
    )
}

/// What a case draws from.
pub(super) fn draws(s: &Stand) -> Result<fastrand::Rng, Failure> {
    Ok(fastrand::Rng::with_seed(seed_of(s)?))
}

fn seed_of(s: &Stand) -> Result<u64, Failure> {
    let seed = seed().map_err(Failure::no_verdict)?;
    s.recorder().goes_by(seed);
    Ok(seed)
}

async fn run_with(s: &Stand, kind: Kind, fencing: Fencing) -> Check {
    let seed = seed_of(s)?;
    let mut setting = Setting::of(s, s.name("seeded"), LENGTH);
    setting.fencing = fencing;
    let plan = Plan::of(seed, kind, &setting);
    let tally = run(s, &plan).await?.judge(&plan)?;
    ensure(tally.grants > 0, "the workload was granted nothing")?;
    // Order is judged by who was seen in the queue.
    let blind = kind == Kind::Queue && tally.queued == 0;
    let in_order = s.capabilities().wait_order == WaitOrder::Fifo;
    ensure(!(blind && in_order), "nobody was seen in the queue")
}
