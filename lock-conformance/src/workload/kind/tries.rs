//! Nobody waits: a few locks, tried again and again.

use crate::workload::draft::Draft;
use crate::workload::script::{Ask, ClientPlan};

pub(super) fn clients(draft: &mut Draft<'_>) -> (Vec<String>, Vec<ClientPlan>) {
    let count = draft.rng.usize(1..=3);
    let names = draft.names(count);
    let (clients, tasks) = (draft.rng.usize(3..=5), draft.rng.usize(1..=3));
    let clients = draft.clients(clients, tasks, |draft| {
        let name = draft.one_of(&names).to_owned();
        let mut step = draft.section(&name);
        step.ask = Ask::Try;
        step
    });
    (names, clients)
}
