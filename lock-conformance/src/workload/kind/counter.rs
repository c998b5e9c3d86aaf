//! The exclusive counter: everybody waits for one lock, and adds one behind it.

use crate::workload::draft::Draft;
use crate::workload::script::{ClientPlan, Work};

pub(super) fn clients(draft: &mut Draft<'_>) -> (Vec<String>, Vec<ClientPlan>) {
    let names = draft.names(1);
    let (clients, tasks) = (draft.rng.usize(3..=5), draft.rng.usize(2..=4));
    let clients = draft.clients(clients, tasks, |draft| {
        let mut step = draft.section(&names[0]);
        step.work = Work::Increment(draft.ms(0..6));
        step
    });
    (names, clients)
}
