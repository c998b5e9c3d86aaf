//! One line of the kill table, and the harness that a mutant is run with.

use std::sync::Arc;
use std::time::Duration;

use lock_conformance::{Arena, Case, Harness, Missing, Pace, Report, run};
use lock_core::ClientOptions;

use crate::bend::{Bend, ConnectBent, Honest};
use crate::far::{self, FarHarness};

/// A backend with one defect, and the cases that were written to find it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mutant {
    /// The type that is it.
    pub(crate) name: &'static str,
    /// What is wrong with it, as the end of a sentence that begins with "the backend".
    pub(crate) wrong: &'static str,
    /// The cases that have to fail on it. Others may, too.
    pub(crate) killed_by: &'static [&'static str],
    pub(crate) side: Side,
    pub(crate) bend: fn() -> Arc<dyn Bend>,
}

/// Where a bend is when there is a network between client and server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Side {
    /// In front of the client: it sees what core asks for and what comes back to it.
    Front,
    /// Behind the network: it sees what arrives at the server.
    Behind,
}

/// The entry of the table for a type that is a [`Bend`], in front of the client unless it says otherwise.
macro_rules! mutant {
    ($bend:ident, $wrong:literal, [$($case:literal),+ $(,)?]) => {
        mutant!($bend, $wrong, [$($case),+], Front)
    };
    ($bend:ident, $wrong:literal, [$($case:literal),+ $(,)?], $side:ident) => {
        $crate::mutant::Mutant {
            name: stringify!($bend),
            wrong: $wrong,
            killed_by: &[$($case),+],
            side: $crate::mutant::Side::$side,
            bend: || ::std::sync::Arc::new($bend::default()),
        }
    };
}
pub(crate) use mutant;

fn honest() -> Arc<dyn Bend> {
    Arc::new(Honest)
}

/// Runs one case, on the honest backend or on a mutant, with a network where the case breaks something.
pub(crate) fn run_case(case: &Case, mutant: Option<&Mutant>) -> Report {
    let bend = mutant.map_or(honest as fn() -> _, |mutant| mutant.bend);
    let side = mutant.map_or(Side::Front, |mutant| mutant.side);
    if !far::needed(case) {
        return run(BentHarness(bend), &case.title());
    }
    let harness = match side {
        Side::Front => FarHarness {
            front: bend,
            front_name: mutant.map(|mutant| mutant.name),
            behind: honest,
        },
        Side::Behind => FarHarness {
            front: honest,
            front_name: None,
            behind: bend,
        },
    };
    run(harness, &case.title())
}

/// Runs cases on a store that is reached through a bend.
pub(crate) struct BentHarness(pub(crate) fn() -> Arc<dyn Bend>);

impl Harness for BentHarness {
    fn name(&self) -> &str {
        "mutant"
    }

    fn pace(&self) -> Pace {
        Pace::new(Duration::from_millis(300))
    }

    fn arena(&self, _case: &Case) -> Result<Arena, Missing> {
        let bend = (self.0)();
        let clock = bend.client_clock();
        let connect = ConnectBent::to_memory(bend);
        let arena = Arena::new(move || Box::new(connect.clone()));
        Ok(match clock {
            Some(clock) => arena.with_options(ClientOptions::default().with_clock(clock)),
            None => arena,
        })
    }
}
