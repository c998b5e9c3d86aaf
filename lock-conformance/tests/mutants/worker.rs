//! This program as one of its own worker processes: a client of the parent's server, with the same defect in
//! front of it.

use std::sync::Arc;
use std::time::Duration;

use lock_conformance::{Arena, Case, Harness, Missing, Pace};
use lock_core::Connect;

use crate::bend::{Bend, ConnectBent, Honest};
use crate::far::{ConnectRemote, Spec};
use crate::mutant::Side;
use crate::table;

/// What a worker knows of the harness that has started it: the spec says the rest.
pub(crate) struct Worker;

impl Harness for Worker {
    fn name(&self) -> &str {
        "mutant in another process"
    }

    fn pace(&self) -> Pace {
        Pace::new(Duration::from_millis(300))
    }

    fn arena(&self, _: &Case) -> Result<Arena, Missing> {
        Err(std::io::Error::other("a worker runs no case").into())
    }

    fn connector(&self, spec: &str) -> Option<Box<dyn Connect>> {
        let Spec { front, socket } = serde_json::from_str(spec).ok()?;
        let mutant = table::mutants()
            .find(|mutant| mutant.side == Side::Front && Some(mutant.name) == front.as_deref());
        let bend: Arc<dyn Bend> = match (mutant, front) {
            (Some(mutant), _) => (mutant.bend)(),
            (None, None) => Arc::new(Honest),
            (None, Some(_)) => return None,
        };
        let origin = ConnectRemote(socket);
        Some(Box::new(ConnectBent::new(Arc::new(origin), bend)))
    }
}
