//! Noticing that somebody wants an end: Ctrl-C, or a polite signal.

use std::thread;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Whether somebody has asked for an end.
#[derive(Clone, Debug)]
pub(super) struct Interrupt(watch::Receiver<bool>);

impl Interrupt {
    /// Listens from now on, to the end of the process: those signals end it no longer.
    pub(super) fn listen() -> Self {
        let (asked, interrupt) = watch::channel(false);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            // Without a listener the signals do what they always do.
            let Ok(runtime) = runtime else { return };
            runtime.block_on(async {
                let listening = (
                    signal(SignalKind::interrupt()),
                    signal(SignalKind::terminate()),
                );
                let (Ok(mut interrupt), Ok(mut terminate)) = listening else {
                    return;
                };
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    () = asked.closed() => return,
                }
                asked.send_replace(true);
                asked.closed().await;
            });
        });
        Self(interrupt)
    }

    /// Nobody will ask.
    pub(super) fn never() -> Self {
        Self(watch::channel(false).1)
    }

    pub(super) fn has_come(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until somebody asks for an end.
    pub(super) async fn come(&self) {
        let mut asked = self.0.clone();
        if asked.wait_for(|asked| *asked).await.is_err() {
            // Nobody listens: nothing comes.
            std::future::pending().await
        }
    }
}
