//! What the kernel tells: the lock of a file was given back, or the file taken away.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use crate::file::LockFile;

/// What happens to a file when its lock is given back: a process that dies closes it, a release touches it
/// (a guard may keep it open for longer), and a sweep removes it.
const HANDED_BACK: AddWatchFlags = AddWatchFlags::IN_CLOSE_WRITE.union(AddWatchFlags::IN_ATTRIB);

/// One inotify instance for a client.
#[derive(Debug)]
pub(crate) struct Wake {
    inotify: AsyncFd<Instance>,
    watched: Mutex<HashMap<WatchDescriptor, Watched>>,
}

#[derive(Debug)]
struct Watched {
    signal: watch::Sender<()>,
    waiting: usize,
}

#[derive(Debug)]
struct Instance(Inotify);

impl AsRawFd for Instance {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Wake {
    /// Watches `dir` for files that are taken away, or replaced by others that are moved there.
    pub(crate) fn new(dir: &Path) -> io::Result<Arc<Self>> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        inotify.add_watch(
            dir,
            AddWatchFlags::IN_DELETE
                | AddWatchFlags::IN_MOVED_FROM
                | AddWatchFlags::IN_MOVED_TO
                | AddWatchFlags::IN_MOVE_SELF
                | AddWatchFlags::IN_ONLYDIR,
        )?;
        #[expect(
            deprecated,
            reason = "unsound only for a type that gives another descriptor later; `Instance` owns one"
        )]
        let inotify = AsyncFd::new(Instance(inotify))?;
        Ok(Arc::new(Self {
            inotify,
            watched: Mutex::default(),
        }))
    }

    /// Is told from now on when the lock of this file may have been given back.
    ///
    /// Fails when the user has as many watches as the system allows; then time alone has to do.
    pub(crate) fn handed_back(self: &Arc<Self>, file: &LockFile) -> io::Result<HandedBack> {
        let mut watched = self.watched();
        // Not by its own path, which may lead to another file by now.
        let inotify = &self.inotify.get_ref().0;
        let id = inotify.add_watch(&file.by_descriptor(), HANDED_BACK)?;
        let entry = watched.entry(id).or_insert_with(|| Watched {
            signal: watch::Sender::new(()),
            waiting: 0,
        });
        entry.waiting += 1;
        Ok(HandedBack {
            signal: entry.signal.subscribe(),
            id,
            wake: Arc::clone(self),
        })
    }

    /// Reads what the kernel has to say, for ever; `taken_away` is told the names of files that are not
    /// where they were, or `None` when that may be any of them.
    pub(crate) async fn listen(&self, taken_away: impl Fn(Option<OsString>)) -> io::Error {
        loop {
            let mut ready = match self.inotify.readable().await {
                Ok(ready) => ready,
                Err(error) => return error,
            };
            match ready.get_inner().0.read_events() {
                Ok(events) => {
                    for event in events {
                        self.handle(event, &taken_away);
                    }
                }
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(Errno::EINTR) => {}
                Err(errno) => return errno.into(),
            }
        }
    }

    fn handle(&self, event: InotifyEvent, taken_away: &impl Fn(Option<OsString>)) {
        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            // Whatever was lost: everybody looks for himself.
            for watched in self.watched().values() {
                watched.signal.send_replace(());
            }
            taken_away(None);
        } else if event.mask.contains(AddWatchFlags::IN_MOVE_SELF) {
            taken_away(None);
        } else if let Some(name) = event.name {
            taken_away(Some(name));
        } else if let Some(watched) = self.watched().get(&event.wd) {
            watched.signal.send_replace(());
        }
    }

    fn watched(&self) -> MutexGuard<'_, HashMap<WatchDescriptor, Watched>> {
        // Nothing between two statements on the map can panic.
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Being told when a lock may have been given back; ends with this value.
#[derive(Debug)]
pub(crate) struct HandedBack {
    signal: watch::Receiver<()>,
    id: WatchDescriptor,
    wake: Arc<Wake>,
}

impl HandedBack {
    /// Resolves when that has happened since the last call.
    pub(crate) async fn changed(&mut self) {
        if self.signal.changed().await.is_err() {
            // The sender lives as long as this value.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for HandedBack {
    fn drop(&mut self) {
        let mut watched = self.wake.watched();
        let Some(entry) = watched.get_mut(&self.id) else {
            return;
        };
        entry.waiting -= 1;
        if entry.waiting == 0 {
            watched.remove(&self.id);
            // The kernel has removed it already when the file itself is gone.
            let _ = self.wake.inotify.get_ref().0.rm_watch(self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn file_is_taken_away_also_by_one_that_is_moved_over_it() {
        let root = tempfile::tempdir().expect("a directory");
        let (locks, other) = (root.path().join("locks"), root.path().join("other"));
        fs::create_dir(&locks).expect("makes");
        let lock = locks.join("n.lock");
        for file in [&lock, &other] {
            fs::write(file, "").expect("writes");
        }
        let wake = Wake::new(&locks).expect("an instance");
        let (tell, mut told) = mpsc::unbounded_channel();
        fs::rename(other, lock).expect("renames");
        let listening = wake.listen(|file| tell.send(file).expect("is heard"));
        let file = tokio::select! {
            file = told.recv() => file,
            error = listening => panic!("{error}"),
            () = tokio::time::sleep(Duration::from_secs(10)) => panic!("nothing was said"),
        };
        assert_eq!(file, Some(Some("n.lock".into())));
    }
}
