//! How the suite breaks this backend. Nothing here is needed to begin with: a harness without faults runs the cases that
//! need none, and each method brings the cases that need it.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use lock_conformance::fault::{Protocol, Proxy};
use lock_conformance::{Fault, Faults, HeldRequest, Wire, async_trait};
use lock_core::{Claim, Connect as _, Context, Identity, LockName};
use tcp_locks::{Disk, Server, Store, TcpConfig};
use tokio::sync::OwnedMutexGuard;

pub(crate) const SUPPORTED: &[Fault] = &[
    Fault::Kill,
    Fault::Wipe,
    Fault::Pause,
    Fault::Cut,
    Fault::BlackHole,
    Fault::HoldReplies,
    Fault::DropReplies,
    Fault::HoldRequest,
    Fault::Records,
    Fault::Obstruct,
];

pub(crate) struct TcpFaults {
    addr: SocketAddr,
    disk: Disk,
    server: Mutex<Option<Server>>,
    /// While there is one, the server stands still.
    paused: Mutex<Option<OwnedMutexGuard<Store>>>,
    proxy: Proxy,
}

impl TcpFaults {
    pub(crate) fn start(addr: SocketAddr) -> io::Result<Self> {
        let disk = Disk::default();
        Ok(Self {
            addr,
            server: Mutex::new(Some(Server::start(addr, disk.clone())?)),
            disk,
            paused: Mutex::default(),
            proxy: Proxy::start_with(addr, Protocol::Lines),
        })
    }

    /// Where clients are in the hands of the proxy.
    pub(crate) fn proxied(&self) -> SocketAddr {
        self.proxy.addr()
    }
}

#[async_trait]
impl Faults for TcpFaults {
    async fn kill_server(&self) -> io::Result<()> {
        set(&self.server, None);
        Ok(())
    }

    async fn restart_server(&self) -> io::Result<()> {
        let server = Server::start(self.addr, self.disk.clone())?;
        set(&self.server, Some(server));
        Ok(())
    }

    async fn wipe(&self) -> io::Result<()> {
        self.disk.store().await.wipe();
        Ok(())
    }

    async fn pause_server(&self) -> io::Result<()> {
        let store = self.disk.store().await;
        set(&self.paused, Some(store));
        Ok(())
    }

    async fn resume_server(&self) -> io::Result<()> {
        set(&self.paused, None);
        Ok(())
    }

    /// All faults of the connection but one: cut, black hole, held and dropped replies.
    fn wire(&self) -> Option<&dyn Wire> {
        Some(&self.proxy)
    }

    async fn hold_next_request(&self, text: &str) -> io::Result<Box<dyn HeldRequest + '_>> {
        let text = text.as_bytes().to_vec();
        let names = move |request: &[u8]| request.windows(text.len()).any(|part| part == text);
        Ok(self.proxy.hold_next(names))
    }

    async fn records(&self) -> io::Result<Vec<String>> {
        Ok(self.disk.store().await.keys())
    }

    async fn unbounded_records(&self) -> io::Result<Vec<String>> {
        // The server knows no key without an end.
        Ok(Vec::new())
    }

    async fn obstruct(&self, name: &str) -> io::Result<()> {
        // Which key a lock has is the backend's own affair: it is asked to make one.
        let config = TcpConfig::new(self.addr.to_string());
        let identity = Identity::of_this_process("obstruct");
        let backend = config.connect(Context::new(identity.clone())).await;
        let backend = backend.map_err(io::Error::other)?;
        let name = LockName::new(name).map_err(io::Error::other)?;
        let claim = Claim::new(name, identity, std::time::Duration::from_secs(60));
        let tried = backend.try_acquire(&claim).await;
        tried.map_err(io::Error::other)?;
        self.disk.store().await.overwrite("not a lock");
        backend.close().await.map_err(io::Error::other)
    }
}

fn set<T>(slot: &Mutex<T>, value: T) {
    *slot.lock().unwrap_or_else(PoisonError::into_inner) = value;
}
