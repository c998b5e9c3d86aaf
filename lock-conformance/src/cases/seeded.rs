//! Seeded workloads as cases: some seconds of each kind, with a seed that differs from run to run.

use super::prelude::*;
use crate::resource::Fencing;
use crate::workload::{Kind, Plan, Setting, run, seed};

/// For how long clients keep asking.
const LENGTH: Duration = Duration::from_millis(2000);

/// Runs the workload and checks its history.
pub(super) async fn run_seeded(s: Stand, kind: Kind) -> Check {
    run_with(&s, kind, Fencing::Checked).await.map(drop)
}

/// Runs the workload without a fence, which has to show.
pub(super) async fn run_unfenced(s: Stand, kind: Kind) -> Check {
    let seed = run_with(&s, kind, Fencing::Ignored).await?;
    let lost = history::lost_updates(&s.recorder().events());
    ensure(
        lost > 0,
        "nobody looked at tokens, and yet no update was lost",
    )
    .map_err(|failure| failure.with_seed(seed))
}

async fn run_with(s: &Stand, kind: Kind, fencing: Fencing) -> Result<u64, Failure> {
    let seed = seed().map_err(Failure::no_verdict)?;
    let mut setting = Setting::of(s, s.name("seeded"), LENGTH);
    setting.fencing = fencing;
    let plan = Plan::of(seed, kind, &setting);
    let ran = run(s, &plan).await;
    let ran = ran.map_err(|failure| failure.with_seed(seed))?;
    let judged = ran.judge(&plan).and_then(|tally| {
        let granted = tally.grants > 0;
        ensure(granted, "the workload was granted nothing")
    });
    judged.map_err(|failure| failure.with_seed(seed))?;
    Ok(seed)
}
