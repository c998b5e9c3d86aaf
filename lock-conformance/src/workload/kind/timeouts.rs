//! Waits that end at any moment: by their deadline, or because whoever asked has gone.

use crate::workload::draft::Draft;
use crate::workload::script::{Ask, ClientPlan};

pub(super) fn clients(draft: &mut Draft<'_>) -> (Vec<String>, Vec<ClientPlan>) {
    let count = draft.rng.usize(1..=2);
    let names = draft.names(count);
    let (clients, tasks) = (draft.rng.usize(3..=5), draft.rng.usize(2..=4));
    let clients = draft.clients(clients, tasks, |draft| {
        let name = draft.one_of(&names).to_owned();
        let mut step = draft.section(&name);
        let patience = draft.ms(0..60);
        step.ask = match draft.rng.u8(0..4) {
            0 => Ask::Within(patience),
            1 | 2 => Ask::Cancel(patience),
            _ => Ask::Wait,
        };
        step
    });
    (names, clients)
}
