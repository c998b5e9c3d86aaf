//! Holds that last for several leases: renewal, and waiters that stay in the queue for long.

use crate::workload::draft::Draft;
use crate::workload::script::{Ask, ClientPlan, Work};

pub(super) fn clients(draft: &mut Draft<'_>) -> (Vec<String>, Vec<ClientPlan>) {
    let count = draft.rng.usize(2..=4);
    let names = draft.names(count);
    let (clients, tasks) = (draft.rng.usize(3..=4), draft.rng.usize(2..=3));
    let ttl = draft.ttl.min(draft.setting.length / 3);
    let clients = draft.clients(clients, tasks, |draft| {
        let name = draft.one_of(&names).to_owned();
        let mut step = draft.section(&name);
        step.work = Work::Hold(draft.part(ttl, 50..200));
        if draft.chance(30) {
            step.ask = Ask::Within(draft.part(ttl, 10..150));
        }
        step
    });
    (names, clients)
}
