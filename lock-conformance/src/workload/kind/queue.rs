//! Queue order: every client has one task, so that its place in the backend's queue is its own, and
//! holds are long enough for a look at the queue.

use crate::workload::draft::Draft;
use crate::workload::script::{Ask, ClientPlan, Work};

pub(super) fn clients(draft: &mut Draft<'_>) -> (Vec<String>, Vec<ClientPlan>) {
    let names = draft.names(1);
    let clients = draft.rng.usize(5..=8);
    let clients = draft.clients(clients, 1, |draft| {
        let mut step = draft.section(&names[0]);
        step.think = draft.ms(0..40);
        step.work = Work::Hold(draft.ms(4..25));
        if draft.chance(15) {
            step.ask = Ask::Try;
        }
        step
    });
    (names, clients)
}
