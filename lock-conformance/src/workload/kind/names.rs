//! Many locks: what one is asked for must not touch another.

use crate::workload::draft::Draft;
use crate::workload::script::{Ask, ClientPlan, Work};

pub(super) fn clients(draft: &mut Draft<'_>) -> (Vec<String>, Vec<ClientPlan>) {
    let count = draft.rng.usize(20..=40);
    let names = draft.names(count);
    let (clients, tasks) = (draft.rng.usize(3..=5), draft.rng.usize(3..=6));
    let mut unused = names.iter();
    let clients = draft.clients(clients, tasks, |draft| {
        // Each of them at least once.
        let name = match unused.next() {
            Some(name) => name.clone(),
            None => draft.one_of(&names).to_owned(),
        };
        let mut step = draft.section(&name);
        step.work = Work::Hold(draft.ms(0..40));
        if draft.chance(40) {
            step.ask = Ask::Try;
        }
        step
    });
    (names, clients)
}
