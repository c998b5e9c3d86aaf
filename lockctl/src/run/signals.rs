//! The signals that lockctl passes on to its command.

use std::fs;
use std::io;

use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// What asks to end.
const TO_END: [Signal; 4] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
];
/// What asks to stop for a while, to go on, or for something that only the command knows.
const OTHERS: [Signal; 4] = [
    Signal::SIGTSTP,
    Signal::SIGCONT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// Signals as they come.
pub(crate) struct Signals {
    arrived: mpsc::UnboundedReceiver<Signal>,
}

impl Signals {
    /// From now on these signals do not end lockctl. One that was ignored when lockctl was started,
    /// as SIGHUP is under `nohup`, stays ignored, here and in the command.
    pub(crate) fn listen() -> io::Result<Self> {
        let ignored = ignored();
        if ignored & mask(Signal::SIGXFSZ) == 0 {
            // Caught, and forgotten: a write beyond `ulimit -f` is to fail, and not to end lockctl. Unlike
            // an ignored signal, a caught one is as before in the command.
            let _ = signal(SignalKind::from_raw(Signal::SIGXFSZ as i32))?;
        }
        let (sender, arrived) = mpsc::unbounded_channel();
        for wanted in TO_END.into_iter().chain(OTHERS) {
            if ignored & mask(wanted) != 0 {
                continue;
            }
            let mut stream = signal(SignalKind::from_raw(wanted as i32))?;
            let sender = sender.clone();
            tokio::spawn(async move {
                while stream.recv().await.is_some() && sender.send(wanted).is_ok() {}
            });
        }
        Ok(Self { arrived })
    }

    /// The next signal. Never resolves when all of them are ignored.
    ///
    /// Cancel safe.
    pub(crate) async fn next(&mut self) -> Signal {
        match self.arrived.recv().await {
            Some(signal) => signal,
            None => std::future::pending().await,
        }
    }

    /// The next signal that asks to end, as long as there is no command that could be asked.
    ///
    /// Cancel safe.
    pub(crate) async fn next_to_end(&mut self) -> Signal {
        loop {
            match self.next().await {
                Signal::SIGTSTP => stop_here(),
                signal if asks_to_end(signal) => return signal,
                _ => {}
            }
        }
    }
}

pub(crate) fn asks_to_end(signal: Signal) -> bool {
    TO_END.contains(&signal)
}

/// Stops this process until it is continued. In a group that no shell looks after, it goes on at once:
/// the kernel does not stop what nobody could continue.
pub(crate) fn stop_here() {
    // SIGTSTP is caught here, and SIGSTOP would stop an orphan too: SIGTTOU does neither.
    let _ = nix::sys::signal::raise(Signal::SIGTTOU);
}

const fn mask(signal: Signal) -> u64 {
    1 << (signal as u32 - 1)
}

/// The signals that this process was started to ignore; none where that cannot be read.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignored_in(&status)
}

fn ignored_in(status: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_their_mask() {
        let ignored = ignored_in("SigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n");
        assert_ne!(ignored & mask(Signal::SIGHUP), 0);
        assert_ne!(ignored & mask(Signal::SIGPIPE), 0);
        assert_eq!(ignored & mask(Signal::SIGTERM), 0);
        assert_eq!(ignored_in(""), 0);
    }
}
