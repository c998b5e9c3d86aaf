//! Holders that are stopped past their lease: worker processes by signals, which the schedule of
//! faults sends, and tasks by leases that end while they think.

use crate::workload::draft::Draft;
use crate::workload::script::{ClientPlan, Work};

pub(super) fn clients(draft: &mut Draft<'_>) -> (Vec<String>, Vec<ClientPlan>) {
    let names = draft.names(1);
    let clients = draft.rng.usize(3..=4);
    let clients = draft.clients(clients, 2, |draft| {
        let mut step = draft.section(&names[0]);
        // Long enough for a signal to arrive between reading and writing.
        step.work = Work::Increment(draft.ms(5..40));
        match draft.chance(10) {
            true => draft.oversleep(step),
            false => step,
        }
    });
    (names, clients)
}
