//! The server: reads requests, runs them in their order, answers.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::protocol::{Answer, Ask, Request};
use crate::store::Disk;

/// A running server, on a thread of its own. Dropped, it is dead, as after a kill: its connections are closed, and what
/// it was about to do is not done.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on `addr`, with what is on `disk`.
    ///
    /// # Errors
    /// When the address is taken, or the machine has no thread left.
    pub fn start(addr: SocketAddr, disk: Disk) -> io::Result<Self> {
        let listener = TcpListener::bind(addr)?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("tcp-locks".into())
            .spawn(move || {
                runtime.block_on(async move {
                    tokio::select! {
                        _ = stopped => {}
                        _ = accept(listener, disk) => {}
                    }
                });
            })?;
        Ok(Self {
            addr,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Waits until it has ended by itself.
    pub fn join(mut self) {
        if let Some(thread) = self.thread.take() {
            // A panic has been printed by the thread.
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, disk: Disk) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((socket, _)) => drop(connections.spawn(serve(socket, disk.clone()))),
            // Of a connection that has gone already, or there are too many: neither ends the server, nor may it spin.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// One connection, until the client closes it or says something else than requests.
async fn serve(socket: TcpStream, disk: Disk) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let (read, write) = socket.into_split();
    let (answers, outgoing) = mpsc::unbounded_channel();
    // They end with the connection: the set is dropped.
    let mut tasks = JoinSet::new();
    tasks.spawn(send(outgoing, write));
    let mut lines = BufReader::new(read).lines();
    while let Some(line) = lines.next_line().await? {
        while tasks.try_join_next().is_some() {}
        let Request { id, ask } = serde_json::from_str(&line)?;
        match ask {
            Ask::Txn(txn) => {
                let answer = disk.store().await.run(txn);
                let _ = answers.send(Answer { id, ..answer });
            }
            Ask::UntilGone {
                key,
                created,
                at_most_ms,
            } => {
                let (disk, answers) = (disk.clone(), answers.clone());
                tasks.spawn(async move {
                    let at_most = Duration::from_millis(at_most_ms);
                    // Gone or not: who asked looks.
                    let _ = tokio::time::timeout(at_most, until_gone(&disk, &key, created)).await;
                    let answer = Answer::default();
                    let _ = answers.send(Answer { id, ..answer });
                    Ok(())
                });
            }
        }
    }
    Ok(())
}

async fn until_gone(disk: &Disk, key: &str, created: u64) {
    loop {
        let until = disk.store().await.until(key, created);
        let Some((left, mut gone)) = until else {
            return;
        };
        tokio::select! {
            _ = gone.changed() => {}
            () = tokio::time::sleep(left) => {}
        }
    }
}

async fn send(
    mut outgoing: mpsc::UnboundedReceiver<Answer>,
    mut write: OwnedWriteHalf,
) -> io::Result<()> {
    while let Some(answer) = outgoing.recv().await {
        let mut line = serde_json::to_vec(&answer)?;
        line.push(b'\n');
        write.write_all(&line).await?;
    }
    Ok(())
}
