//! The conformance suite on this backend.

mod faults;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use lock_conformance::servers::free_port;
use lock_conformance::{Arena, Case, Fault, Harness, Missing, Pace};
use tcp_locks::TcpConfig;

use faults::TcpFaults;

struct TcpHarness;

impl Harness for TcpHarness {
    fn name(&self) -> &str {
        "tcp"
    }

    fn pace(&self) -> Pace {
        Pace {
            // Joining the queue, and taking the lock in front of it.
            local_hand_off: 2,
            ..Pace::new(Duration::from_millis(500))
        }
    }

    /// A server of its own for each case, and a proxy in front of it.
    fn arena(&self, _: &Case) -> Result<Arena, Missing> {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let faults = TcpFaults::start(addr)?;
        let proxied = connector(faults.proxied());
        Ok(Arena::new(connector(addr))
            .with_spec(addr.to_string())
            .with_proxied(proxied)
            .with_faults(Arc::new(faults)))
    }

    fn supports(&self, fault: Fault) -> bool {
        faults::SUPPORTED.contains(&fault)
    }

    fn crosses_processes(&self) -> bool {
        true
    }

    /// In a worker process: the server runs in the program that started it.
    fn connector(&self, spec: &str) -> Option<Box<dyn lock_core::Connect>> {
        Some(Box::new(TcpConfig::new(spec)))
    }
}

fn connector(addr: SocketAddr) -> impl Fn() -> Box<dyn lock_core::Connect> + Send + Sync {
    move || Box::new(TcpConfig::new(addr.to_string()))
}

lock_conformance::main!(TcpHarness);
