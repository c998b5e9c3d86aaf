//! One line of the kill table, and the harness that a mutant is run with.

use std::sync::Arc;
use std::time::Duration;

use lock_conformance::{Arena, Case, Harness, Missing, Pace};
use lock_core::ClientOptions;

use crate::bend::{Bend, ConnectBent};

/// A backend with one defect, and the cases that were written to find it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mutant {
    /// The type that is it.
    pub(crate) name: &'static str,
    /// What is wrong with it, as the end of a sentence that begins with "the backend".
    pub(crate) wrong: &'static str,
    /// The cases that have to fail on it. Others may, too.
    pub(crate) killed_by: &'static [&'static str],
    pub(crate) bend: fn() -> Arc<dyn Bend>,
}

/// The entry of the table for a type that is a [`Bend`].
macro_rules! mutant {
    ($bend:ident, $wrong:literal, [$($case:literal),+ $(,)?]) => {
        $crate::mutant::Mutant {
            name: stringify!($bend),
            wrong: $wrong,
            killed_by: &[$($case),+],
            bend: || ::std::sync::Arc::new($bend::default()),
        }
    };
}
pub(crate) use mutant;

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
        let connect = ConnectBent::new(bend);
        let arena = Arena::new(move || Box::new(connect.clone()));
        Ok(match clock {
            Some(clock) => arena.with_options(ClientOptions::default().with_clock(clock)),
            None => arena,
        })
    }
}
