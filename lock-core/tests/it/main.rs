//! Public API tests of lock-core: its own mechanisms, over a backend that fails on demand.

mod cancel;
mod faulty;
mod in_line;
mod loss;
mod outage;
mod record;
mod reentrancy;
mod shutdown;
mod threads;
mod types;
