//! The fenced register: some writers come after their lease has ended, and others have written since.

use crate::workload::draft::Draft;
use crate::workload::script::{ClientPlan, Work};

pub(super) fn clients(draft: &mut Draft<'_>) -> (Vec<String>, Vec<ClientPlan>) {
    let names = draft.names(2);
    let clients = draft.rng.usize(3..=4);
    let clients = draft.clients(clients, 3, |draft| {
        let name = draft.one_of(&names).to_owned();
        let mut step = draft.section(&name);
        step.work = Work::Increment(draft.ms(0..10));
        match draft.chance(25) {
            true => draft.oversleep(step),
            false => step,
        }
    });
    (names, clients)
}
