//! The harness of the cases that break something, or take more than a store.

use std::io;
use std::path::PathBuf;

use futures_util::future::BoxFuture;
use lock_conformance::history::Record;
use lock_conformance::{
    Arena, Case, Fault, Faults, Harness, HeldRequest, Missing, Need, Pace, Wire, Witness,
};
use lock_core::Connect;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::client::ConnectFar;
use super::door;
use super::network::Network;
use super::server::{Server, capabilities};
use crate::bend::{ConnectBent, Upheaval};
use crate::prelude::*;

/// A client with one bend in front of it and a server with one behind it.
pub(crate) struct FarHarness {
    pub(crate) front: fn() -> Arc<dyn Bend>,
    /// The mutant in front, for worker processes; `None` for the honest one.
    pub(crate) front_name: Option<&'static str>,
    pub(crate) behind: fn() -> Arc<dyn Bend>,
}

/// How a worker process finds the server, and what is in front of it there.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Spec {
    pub(crate) front: Option<String>,
    pub(crate) socket: PathBuf,
}

/// Whether the case takes more than a store: something that breaks, processes, or what memory alone does not
/// declare.
pub(crate) fn needed(case: &Case) -> bool {
    let alone = capabilities_of_memory();
    case.needs.iter().any(|need| match need {
        Need::Capability(_, has) => !has(&alone),
        Need::Fault(_) | Need::Processes => true,
    })
}

/// Whether the case asks for a claim window. Others run without one, as on memory.
fn hands_off(case: &Case) -> bool {
    let (with, without) = (capabilities(true), capabilities(false));
    case.needs
        .iter()
        .any(|need| matches!(need, Need::Capability(_, has) if has(&with) && !has(&without)))
}

impl FarHarness {
    /// Opens the server's door: what a worker has to be told, and the directory that it is in.
    fn let_processes_in(&self, faults: &FarFaults) -> io::Result<(String, TempDir)> {
        let dir = tempfile::Builder::new()
            .prefix("distlock-mutant-")
            .tempdir()?;
        let socket = dir.path().join("socket");
        door::open(&socket, faults.connect_honestly(Arc::default()))?;
        let front = self.front_name.map(str::to_owned);
        let spec = serde_json::to_string(&Spec { front, socket })?;
        Ok((spec, dir))
    }
}

impl Harness for FarHarness {
    fn name(&self) -> &str {
        "mutant behind a network"
    }

    fn pace(&self) -> Pace {
        let mut pace = Pace::new(Duration::from_millis(300));
        pace.op_timeout = Duration::from_secs(1);
        pace
    }

    fn arena(&self, case: &Case) -> std::result::Result<Arena, Missing> {
        let front = (self.front)();
        let faults = FarFaults {
            server: Arc::new(Server::new((self.behind)(), hands_off(case))),
            network: Arc::default(),
            front: Arc::clone(&front),
        };
        let (spec, dir) = self.let_processes_in(&faults)?;
        let direct = faults.connect(Arc::default());
        let proxied = faults.connect(Arc::clone(&faults.network));
        Ok(Arena::new(move || Box::new(direct.clone()))
            .with_proxied(move || Box::new(proxied.clone()))
            .with_faults(Arc::new(faults))
            .with_spec(spec)
            .keeping(dir))
    }

    fn crosses_processes(&self) -> bool {
        true
    }

    fn supports(&self, _: Fault) -> bool {
        true
    }
}

struct FarFaults {
    server: Arc<Server>,
    network: Arc<Network>,
    front: Arc<dyn Bend>,
}

impl FarFaults {
    fn connect(&self, network: Arc<Network>) -> ConnectBent {
        let far = self.connect_honestly(network);
        ConnectBent::new(Arc::new(far), Arc::clone(&self.front))
    }

    fn connect_honestly(&self, network: Arc<Network>) -> ConnectFar {
        ConnectFar {
            server: Arc::clone(&self.server),
            network,
            greets: self.front.greets(),
            sends_scripts_again: self.front.sends_scripts_again(),
        }
    }

    /// How many requests of these kinds the server has had.
    fn count(&self, wanted: impl Fn(&str) -> bool) -> usize {
        let received = self.server.received_since(0);
        let kinds = received.iter().filter_map(|text| text.split(' ').next());
        kinds.filter(|kind| wanted(kind)).count()
    }
}

#[async_trait]
impl Faults for FarFaults {
    async fn kill_server(&self) -> io::Result<()> {
        self.server.kill();
        Ok(())
    }

    async fn restart_server(&self) -> io::Result<()> {
        self.server.restart();
        Ok(())
    }

    async fn wipe(&self) -> io::Result<()> {
        self.server.lose_everything();
        Ok(())
    }

    async fn pause_server(&self) -> io::Result<()> {
        self.server.pause(true);
        Ok(())
    }

    async fn resume_server(&self) -> io::Result<()> {
        self.server.pause(false);
        Ok(())
    }

    fn wire(&self) -> Option<&dyn Wire> {
        Some(&*self.network)
    }

    async fn hold_next_request(&self, text: &str) -> io::Result<Box<dyn HeldRequest + '_>> {
        Ok(self.network.set_trap(text))
    }

    async fn commands_during(&self, work: BoxFuture<'_, ()>) -> io::Result<Vec<String>> {
        let before = self.server.received_count();
        work.await;
        Ok(self.server.received_since(before))
    }

    async fn scripts(&self) -> io::Result<u64> {
        let changes = self.count(|kind| !matches!(kind, "inspect" | "list" | "close"));
        Ok(u64::try_from(changes).expect("a test sends few requests"))
    }

    async fn connections(&self) -> io::Result<usize> {
        Ok(self.server.connections.load(Ordering::Relaxed))
    }

    async fn subscriptions(&self) -> io::Result<usize> {
        // Pushes come on the connections themselves.
        Ok(0)
    }

    fn wrong_credentials(&self) -> io::Result<Box<dyn Connect>> {
        Ok(Box::new(Refused(self.front.refusal())))
    }

    async fn step_clock(&self, seconds: i64) -> io::Result<()> {
        self.server.set_wall_clock(seconds);
        Ok(())
    }

    async fn kill_session(&self, name: &str, place: usize) -> io::Result<()> {
        let name = LockName::new(name).map_err(io::Error::other)?;
        let ended = self.server.end_session(&name, place).await;
        match ended.map_err(io::Error::other)? {
            true => Ok(()),
            false => Err(io::ErrorKind::NotFound.into()),
        }
    }

    async fn compact(&self) -> io::Result<()> {
        self.server.compact();
        self.front.compacted();
        Ok(())
    }

    async fn witness(&self) -> io::Result<Box<dyn Witness + '_>> {
        self.server.ledger.call_witness();
        Ok(Box::new(FarWitness(Arc::clone(&self.server))))
    }

    async fn flush_scripts(&self) -> io::Result<()> {
        self.server.forget_scripts();
        Ok(())
    }

    async fn records(&self) -> io::Result<Vec<String>> {
        let mut records = self.server.locks().await.map_err(io::Error::other)?;
        records.extend(self.server.endless());
        Ok(records)
    }

    async fn unbounded_records(&self) -> io::Result<Vec<String>> {
        Ok(self.server.endless())
    }

    async fn move_leader(&self) -> io::Result<()> {
        self.server.go_through(Upheaval::MoveOfTheLeader);
        Ok(())
    }

    async fn reconfigure(&self) -> io::Result<()> {
        self.server.go_through(Upheaval::Reconfiguration);
        Ok(())
    }

    async fn fail_over(&self) -> io::Result<()> {
        self.server.fail_over();
        Ok(())
    }

    async fn stop_replication(&self) -> io::Result<()> {
        self.server.stop_replication();
        Ok(())
    }

    async fn obstruct(&self, name: &str) -> io::Result<()> {
        self.server.obstruct(name);
        Ok(())
    }
}

/// Reads what the server has written down.
struct FarWitness(Arc<Server>);

#[async_trait]
impl Witness for FarWitness {
    async fn records(&self) -> io::Result<Vec<Record>> {
        Ok(self.0.ledger.records())
    }
}

/// What a client without the right credentials is told.
#[derive(Debug)]
struct Refused(ErrorKind);

#[async_trait]
impl Connect for Refused {
    async fn connect(&self, _: Context) -> Result<Arc<dyn Backend>> {
        Err(Error::new(self.0, "connect"))
    }
}
