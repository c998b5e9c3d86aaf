//! Lines for people, on standard error.
//!
//! A pipe may be full, a pager may sleep, and a terminal may have been stopped with Ctrl-S: then a write
//! waits for as long as somebody likes. Whoever has a command to end in time, and a lock to keep alive,
//! does not write himself: a thread does that.

use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::sync::OnceLock;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;

/// How long a reader may take.
const PATIENCE: Duration = Duration::from_millis(100);
/// How many times as long this machine may take, where it is not the reader who is late.
const ROUNDS: u32 = 20;

enum Order {
    Write(String),
    /// Drops it, when all is written that came before.
    Confirm(Sender<()>),
}

/// `None` where no thread can be started.
static WRITER: OnceLock<Option<Sender<Order>>> = OnceLock::new();

/// Says one line, without waiting for anybody. Nobody may be there to read it, which is no reason to
/// fail.
pub(crate) fn say(text: &str) {
    let mut line = String::from("lockctl: ");
    line.extend(text.chars().map(|c| if c.is_control() { ' ' } else { c }));
    line.push('\n');
    match WRITER.get_or_init(start) {
        Some(writer) => {
            let _ = writer.send(Order::Write(line));
        }
        None => write(&line),
    }
}

/// Waits until all is written, but not for a reader who does not read.
pub(crate) fn flush() {
    let Some(Some(writer)) = WRITER.get() else {
        return;
    };
    let (confirm, confirmed) = mpsc::channel::<()>();
    let _ = writer.send(Order::Confirm(confirm));
    for _ in 0..ROUNDS {
        let waited = confirmed.recv_timeout(PATIENCE);
        if waited != Err(mpsc::RecvTimeoutError::Timeout) || !has_room() {
            return;
        }
    }
}

fn start() -> Option<Sender<Order>> {
    let (writer, orders) = mpsc::channel();
    let thread = thread::Builder::new().name("stderr".to_owned());
    thread.spawn(move || serve(&orders)).ok().map(|_| writer)
}

fn serve(orders: &Receiver<Order>) {
    // Who writes to a terminal from the background may be stopped by SIGTTOU, with all its threads,
    // unless it is blocked.
    let _ = SigSet::all().thread_block();
    for order in orders {
        match order {
            Order::Write(line) => write(&line),
            Order::Confirm(confirm) => drop(confirm),
        }
    }
}

fn write(line: &str) {
    let _ = io::stderr().write_all(line.as_bytes());
}

/// Whether a line could be written now, without waiting.
fn has_room() -> bool {
    let stderr = io::stderr();
    let mut files = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    poll(&mut files, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}
