//! The trait, one operation each.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use lock_core::{
    Backend, BootInstant, Capabilities, Claim, Clock, Context, CrashRelease, Cursor, Error,
    ErrorKind, Event, FenceStrength, FencingToken, Grant, HolderState, LockName, LockState, Mode,
    Page, Passed, Reach, Renewal, Replaced, Result, Scope, Standing, Validity, WaitOrder,
    async_trait,
};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, spawn_blocking};

use crate::book::{Book, Held};
use crate::config::FileConfig;
use crate::dir;
use crate::error::{invalid, os};
use crate::file::{HeldFile, LockFile, Taker};
use crate::name::{file_name, is_lock};
use crate::record::{self, Found, Holder, Record};
use crate::sweep::sweep_if_due;
use crate::ticket::{Ticket, anybody_waits, waiters};
use crate::token::wall_micros;
use crate::wake::Wake;

/// Waiters look again after at most this, whatever the kernel says.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// A process that dies closes its files a moment before it loses its locks.
const AFTER_CLOSE: [Duration; 3] = [
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(25),
];
/// For so long a sweeper is at a file, unless the machine is busy.
const A_MOMENT: Duration = Duration::from_millis(1);
/// Whether the files of held locks are in place is looked at this often, for what the kernel does not tell:
/// that a directory further up was moved, or anything at all when it has no notifications to spare.
const LOOK_AT_HOLDS: Duration = Duration::from_secs(1);
/// For so long one client may pass a lock among its own tasks before others are let in.
const LONGEST_STREAK: Duration = Duration::from_millis(20);
/// How long others are given then.
const STAND_BACK: Duration = Duration::from_millis(2);
const NO_NOTIFICATIONS: &str =
    "the kernel does not notify this client; it looks at its locks by the clock";
/// A base above this leaves no room for tokens.
const LARGEST_BASE: u64 = 1 << 62;

/// What came of trying once.
enum Attempt {
    Granted(Grant),
    Busy,
    /// Nobody holds it, and a sweeper is at its file for a moment.
    Swept,
}

/// One client of a directory.
pub(crate) struct FileBackend {
    dir: PathBuf,
    mode: u32,
    clock: Clock,
    book: Arc<Mutex<Book>>,
    /// Without it, time has to do.
    wake: Option<Arc<Wake>>,
    events: Mutex<Option<mpsc::UnboundedReceiver<Event>>>,
    tasks: [AbortHandle; 2],
}

impl FileBackend {
    pub(crate) fn open(config: &FileConfig, context: Context) -> Result<Self> {
        config.validate()?;
        if context.fence_base > LARGEST_BASE {
            return Err(invalid(
                "connect",
                format!("fence_base has to be at most {LARGEST_BASE}"),
            ));
        }
        dir::prepare(&config.dir)?;
        // A user has 128 instances on many systems, and others of his programs may have them all.
        let wake = Wake::new(&config.dir)
            .inspect_err(|error| tracing::warn!(%error, "{NO_NOTIFICATIONS}"))
            .ok();
        Ok(Self::with(config, context, wake))
    }

    fn with(config: &FileConfig, context: Context, wake: Option<Arc<Wake>>) -> Self {
        let book = Arc::new(Mutex::new(Book::new(context.fence_base)));
        let (sender, events) = mpsc::unbounded_channel();
        let looking = tokio::spawn(keep_looking(
            wake.clone(),
            Arc::clone(&book),
            sender,
            context.clock.clone(),
        ));
        let sweeping = tokio::spawn(keep_swept(
            config.dir.clone(),
            config.mode,
            config.retention,
            context.fence_base,
            context.clock.clone(),
        ));
        Self {
            dir: config.dir.clone(),
            mode: config.mode,
            clock: context.clock,
            book,
            wake,
            events: Mutex::new(Some(events)),
            tasks: [looking.abort_handle(), sweeping.abort_handle()],
        }
    }

    fn path(&self, name: &LockName) -> PathBuf {
        self.dir.join(file_name(name))
    }

    /// Tries once, with `file` if it is still the right one; leaves the right one there.
    fn attempt(
        &self,
        claim: &Claim,
        file: &mut Option<Arc<LockFile>>,
        op: &'static str,
    ) -> Result<Attempt> {
        let trouble = |error| os(op, "the lock's file", error).with_name(&claim.name);
        loop {
            let current = match file.take() {
                Some(open) => open,
                None => {
                    let opened = LockFile::open(&self.path(&claim.name), self.mode);
                    Arc::new(opened.map_err(trouble)?)
                }
            };
            let locked = current.try_lock().map_err(trouble)?;
            // A file that was swept between opening and locking excludes nobody.
            if !current.is_in_place().map_err(trouble)? {
                continue;
            }
            if locked {
                let grant = self.grant(claim, current, self.clock.now(), op)?;
                return Ok(Attempt::Granted(grant));
            }
            let taken = current.taken_elsewhere().map_err(trouble)?;
            *file = Some(current);
            match taken {
                Some(Taker::Holder) => return Ok(Attempt::Busy),
                Some(Taker::Sweeper) => return Ok(Attempt::Swept),
                // Given back meanwhile, or swept.
                None => {}
            }
        }
    }

    /// Writes the grant into the file, which is locked.
    fn grant(
        &self,
        claim: &Claim,
        file: Arc<LockFile>,
        ours_since: BootInstant,
        op: &'static str,
    ) -> Result<Grant> {
        let trouble = |error| os(op, "the lock's file", error).with_name(&claim.name);
        let last = match record::read(file.file()).map_err(trouble)? {
            Found::Nothing => 0,
            Found::Record(record) if record.name == claim.name.as_str() => record.token,
            Found::Record(record) => {
                return Err(wrong_type(
                    claim,
                    op,
                    &format!("the lock {:?}", record.name),
                ));
            }
            Found::Foreign => return Err(wrong_type(claim, op, "a file that is no lock")),
        };
        let mut book = self.book();
        let token = book.next_token(last)?;
        let record = Record {
            distlock: record::VERSION,
            name: claim.name.as_str().to_owned(),
            token: token.get(),
            holder: Some(Holder {
                nonce: claim.nonce.to_string(),
                identity: claim.identity.to_string(),
                since: wall_micros(),
            }),
        };
        record::write(file.file(), &record).map_err(trouble)?;
        let held = HeldFile(Arc::clone(&file));
        book.insert(
            claim,
            Held {
                name: claim.name.clone(),
                file,
                record,
                ours_since,
            },
        );
        Ok(Grant::new(claim, token, Validity::unlimited()).with_record(Arc::new(held)))
    }

    fn give_back(held: Held, op: &'static str) -> Result<()> {
        let trouble = |error| os(op, "the lock's file", error).with_name(&held.name);
        let record = Record {
            holder: None,
            ..held.record
        };
        // For whoever looks. The lock is what counts, and is given back whatever becomes of this.
        let written = record::write(held.file.file(), &record);
        held.file.unlock().map_err(trouble)?;
        written.map_err(trouble)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.book)
    }
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    // The book is whole between statements that can panic.
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wrong_type(claim: &Claim, op: &'static str, found: &str) -> Error {
    Error::new(ErrorKind::WrongType, op)
        .with_name(&claim.name)
        .with_detail(format!("in place of its file there is {found}"))
}

/// Refuses what this backend does not serve.
fn check(claim: &Claim, op: &'static str) -> Result<()> {
    match claim.mode {
        Mode::Exclusive => Ok(()),
        _ => Err(Error::new(ErrorKind::Unsupported, op)
            .with_name(&claim.name)
            .with_detail("the file backend has exclusive locks only")),
    }
}

/// Tells the client of holds whose file is not in its place any more.
async fn keep_looking(
    wake: Option<Arc<Wake>>,
    book: Arc<Mutex<Book>>,
    lost: mpsc::UnboundedSender<Event>,
    clock: Clock,
) {
    let look = |file: Option<OsString>| {
        let nonces = lock(&book).out_of_place(file.as_deref());
        for nonce in nonces {
            // Nobody listens any more when the client is closing.
            let _ = lost.send(Event::Gone { nonce });
        }
    };
    let told = async {
        if let Some(wake) = wake {
            let error = wake.listen(&look).await;
            tracing::warn!(%error, "{NO_NOTIFICATIONS}");
        }
    };
    let by_the_clock = async {
        loop {
            clock.sleep(LOOK_AT_HOLDS).await;
            look(None);
        }
    };
    tokio::join!(told, by_the_clock);
}

async fn keep_swept(dir: PathBuf, mode: u32, retention: Duration, fence_base: u64, clock: Clock) {
    loop {
        let work = spawn_blocking({
            let dir = dir.clone();
            move || sweep_if_due(&dir, mode, retention, fence_base)
        });
        match work.await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "files of unused locks could not be removed"),
            Err(_) => return,
        }
        clock.sleep(retention).await;
    }
}

#[async_trait]
impl Backend for FileBackend {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::least("file");
        capabilities.fence = FenceStrength::TimeSeeded;
        capabilities.wait_order = WaitOrder::Unordered;
        capabilities.crash_release = CrashRelease::ProcessExit;
        capabilities.scope = Scope::Host;
        capabilities.ttl = None;
        capabilities.list = true;
        capabilities
    }

    async fn try_acquire(&self, claim: &Claim) -> Result<Option<Grant>> {
        check(claim, "try_acquire")?;
        claim.progress.report(Reach::Sent);
        // A sweeper is no reason to say that the lock is not free, unless it is stopped in the middle.
        let until = self.clock.now() + LOOK_AGAIN;
        let mut file = None;
        loop {
            match self.attempt(claim, &mut file, "try_acquire")? {
                Attempt::Granted(grant) => return Ok(Some(grant)),
                Attempt::Swept if self.clock.now() < until => self.clock.sleep(A_MOMENT).await,
                Attempt::Swept | Attempt::Busy => return Ok(None),
            }
        }
    }

    async fn acquire(&self, claim: &Claim) -> Result<Grant> {
        check(claim, "acquire")?;
        // Kept open while waiting: closing it would wake everybody else who waits.
        let mut file = None;
        if claim.progress.reach() == Reach::Queued {
            // Out of `pass`: the others were woken, and are given time to come first.
            self.clock.sleep(STAND_BACK).await;
        } else {
            claim.progress.report(Reach::Sent);
        }
        let mut ticket = None;
        let mut watching = None;
        let mut hurry = AFTER_CLOSE.iter();
        loop {
            // Open until it is compared: the next file would get the number of one that is closed.
            let before = file.clone();
            if let Attempt::Granted(grant) = self.attempt(claim, &mut file, "acquire")? {
                return Ok(grant);
            }
            let Some(open) = &file else { continue };
            if ticket.is_none() {
                ticket = Some(Ticket::new(&self.dir, claim).map_err(|error| {
                    os("acquire", "a waiter's file", error).with_name(&claim.name)
                })?);
            }
            claim.progress.report(Reach::Queued);
            let same = before.is_some_and(|before| Arc::ptr_eq(&before, open));
            if watching.is_none() || !same {
                // Without a watch, which the system may refuse, time has to do.
                watching = self
                    .wake
                    .as_ref()
                    .and_then(|wake| wake.handed_back(open).ok());
                if watching.is_some() {
                    // It may have been given back before the watch began.
                    continue;
                }
            }
            let pause = match hurry.next() {
                Some(short) => *short,
                None => LOOK_AGAIN.mul_f64(0.75 + fastrand::f64() / 4.0),
            };
            let handed_back = async {
                match &mut watching {
                    Some(watching) => watching.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = handed_back => hurry = AFTER_CLOSE.iter(),
                () = self.clock.sleep(pause) => {}
            }
        }
    }

    async fn renew(&self, grants: &[&Grant]) -> Vec<Result<Renewal>> {
        let book = self.book();
        grants
            .iter()
            .map(|grant| match book.get(grant.claim().nonce) {
                None => Ok(Renewal::Gone),
                Some(held) => match held.file.is_in_place() {
                    Ok(true) => Ok(Renewal::Extended(Validity::unlimited())),
                    Ok(false) => Ok(Renewal::Gone),
                    Err(error) => Err(os("renew", "the lock's file", error).with_name(&held.name)),
                },
            })
            .collect()
    }

    async fn release(&self, claim: &Claim) -> Result<bool> {
        let Some(held) = self.book().remove(claim.nonce) else {
            return Ok(false);
        };
        let in_place = held.file.is_in_place().unwrap_or(true);
        Self::give_back(held, "release")?;
        Ok(in_place)
    }

    async fn pass(&self, held: &Claim, next: &Claim) -> Result<Passed> {
        check(next, "pass")?;
        let queued = |released| {
            next.progress.report(Reach::Queued);
            Ok(Passed {
                released,
                next: Standing::Queued,
            })
        };
        let Some(old) = self.book().remove(held.nonce) else {
            return queued(false);
        };
        if !old.file.is_in_place().unwrap_or(true) {
            return queued(false);
        }
        let mut ours_since = old.ours_since;
        if self.clock.now().saturating_since(ours_since) >= LONGEST_STREAK {
            // What cannot be read is no reason to keep the lock from others.
            if !anybody_waits(&self.dir, &next.name).is_ok_and(|waits| !waits) {
                Self::give_back(old, "pass")?;
                return queued(true);
            }
            ours_since = self.clock.now();
        }
        let file = Arc::clone(&old.file);
        match self.grant(next, file, ours_since, "pass") {
            Ok(grant) => Ok(Passed {
                released: true,
                next: Standing::Granted(grant),
            }),
            Err(error) => {
                // Neither has it now; who asked is told why.
                Self::give_back(old, "pass")?;
                Err(error)
            }
        }
    }

    async fn replace(&self, waiting: &Claim, next: &Claim) -> Result<Replaced> {
        check(next, "replace")?;
        // There is no queue with places in it: who waits stands beside the file, not in it.
        let granted = self.book().remove(waiting.nonce);
        // On a file that is gone there is nothing to hand on.
        let Some(granted) = granted.filter(|held| held.file.is_in_place().unwrap_or(true)) else {
            next.progress.report(Reach::Queued);
            return Ok(Replaced::Now(Standing::Queued));
        };
        let since = granted.ours_since;
        let grant = self.grant(next, Arc::clone(&granted.file), since, "replace");
        match grant {
            Ok(grant) => Ok(Replaced::Now(Standing::Granted(grant))),
            Err(error) => {
                Self::give_back(granted, "replace")?;
                Err(error)
            }
        }
    }

    fn events(&self) -> BoxStream<'static, Event> {
        let events = self
            .events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match events {
            Some(events) => futures_util::stream::unfold(events, |mut events| async move {
                events.recv().await.map(|event| (event, events))
            })
            .boxed(),
            None => futures_util::stream::pending().boxed(),
        }
    }

    async fn inspect(&self, name: &LockName) -> Result<LockState> {
        let trouble = |error| os("inspect", "the lock's file", error).with_name(name);
        let mut state = LockState {
            name: name.clone(),
            holders: Vec::new(),
            waiters: waiters(&self.dir, name).map_err(trouble)?,
            last_token: None,
        };
        let found = look(&self.path(name)).map_err(trouble)?;
        let Some((record, locked)) = found else {
            return Ok(state);
        };
        if record.name != name.as_str() {
            return Ok(state);
        }
        state.last_token = FencingToken::new(record.token).ok();
        if let (true, Some(holder), Some(token)) = (locked, record.holder, state.last_token) {
            let age = wall_micros().saturating_sub(holder.since);
            state.holders.push(HolderState {
                nonce: holder.nonce.parse()?,
                token,
                identity: holder.identity.parse()?,
                age: Duration::from_micros(age),
                remaining: None,
                provisional: false,
            });
        }
        Ok(state)
    }

    async fn list(&self, prefix: &str, _cursor: Cursor) -> Result<Page> {
        let (dir, prefix) = (self.dir.clone(), prefix.to_owned());
        let listed = spawn_blocking(move || held_names(&dir, &prefix)).await;
        let names = listed
            .map_err(|error| Error::new(ErrorKind::Unavailable, "list").with_source(error))?
            .map_err(|error| os("list", "the directory", error))?;
        Ok(Page { names, next: None })
    }

    async fn break_hold(&self, name: &LockName, _token: FencingToken) -> Result<bool> {
        Err(Error::new(ErrorKind::Unsupported, "break")
            .with_name(name)
            .with_detail("the operating system's lock belongs to its process: end that process"))
    }

    async fn close(&self) -> Result<()> {
        for task in &self.tasks {
            task.abort();
        }
        let held = self.book().drain();
        let mut outcome = Ok(());
        for held in held {
            outcome = outcome.and(Self::give_back(held, "close"));
        }
        outcome
    }
}

/// What the file says, and whether somebody has its lock.
fn look(path: &Path) -> io::Result<Option<(Record, bool)>> {
    let Some(file) = LockFile::open_existing(path, false)? else {
        return Ok(None);
    };
    let locked = file.is_held_elsewhere()?;
    match record::read(file.file())? {
        Found::Record(record) => Ok(Some((record, locked))),
        Found::Nothing | Found::Foreign => Ok(None),
    }
}

fn held_names(dir: &Path, prefix: &str) -> io::Result<Vec<LockName>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if !entry.file_name().to_str().is_some_and(is_lock) {
            continue;
        }
        // One that is removed or unreadable is left out, not a reason to show nothing.
        let Ok(Some((record, true))) = look(&entry.path()) else {
            continue;
        };
        if record.holder.is_some() && record.name.starts_with(prefix) {
            names.extend(LockName::new(&record.name).ok());
        }
    }
    names.sort_unstable();
    Ok(names)
}

impl Drop for FileBackend {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl fmt::Debug for FileBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileBackend")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
