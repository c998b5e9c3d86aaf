//! The suite on the memory backend: the reference that every other backend is compared with.

use std::time::Duration;

use lock_conformance::{Arena, Case, Harness, Missing, Pace};
use lock_core::MemoryStore;

struct MemoryHarness;

impl Harness for MemoryHarness {
    fn name(&self) -> &str {
        "memory"
    }

    fn pace(&self) -> Pace {
        Pace::new(Duration::from_millis(300))
    }

    fn arena(&self, _case: &Case) -> Result<Arena, Missing> {
        let store = MemoryStore::new();
        Ok(Arena::new(move || Box::new(store.clone())))
    }
}

lock_conformance::main!(MemoryHarness);
