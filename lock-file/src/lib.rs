//! Locks among the processes of one host, in a directory: no server, nothing to install.
//!
//! A lock is a file, and who has the operating system's lock on that file holds it. So the kernel
//! releases the locks of a process that dies, at once, however it dies. The fencing token is kept in
//! the file, is changed under the lock only, and grows across processes and reboots.
//!
//! | | |
//! |---|---|
//! | exclusion | the processes of one host that use one directory on a local file system |
//! | expiry | none while the process lives: a holder that hangs is never replaced, and a TTL has no effect |
//! | crash | the lock is free when the last descriptor of its file is closed: at once after a kill |
//! | order of waiters | none |
//! | waiting | woken by the kernel (inotify, where it has an instance to spare) when a holder closes its file; looks again at most every 250 ms |
//! | tokens | `max(last + 1, fence base + wall clock in µs, largest this client has seen + 1)` |
//!
//! # In the directory
//! | file | |
//! |---|---|
//! | `<name>.lock` | the lock `name`; bytes other than `a-z 0-9 _ -` are written `%xx` |
//! | `~<SHA-256 of the name>.lock` | a lock whose escaped name is too long for a file name |
//! | `.waiting/` | a file for each waiter, locked while it waits; for those who look, nothing is decided by it |
//! | `.swept` | when files that nobody used for the retention (10 minutes) were last removed |
//!
//! Every lock file holds the full name, which is compared, and the last token. A file that is removed or moved
//! while it is held is no lock any more: its holder is told, at once, or within 1 s when that was done to a
//! directory further up or when the kernel sends no notifications.
//!
//! # Limits
//! * Local file systems only. On NFS these locks are kept by the server's lock manager, which this crate
//!   was not tested with, and waiters are not woken by other hosts.
//! * Linux only: open file description locks and inotify.
//! * Whoever may write into the directory may break every lock in it. A directory that others may write
//!   to without the sticky bit is refused.

#[cfg(not(target_os = "linux"))]
compile_error!("lock-file needs Linux: open file description locks and inotify");

mod backend;
mod book;
mod config;
mod connect;
mod dir;
mod error;
mod file;
mod name;
mod record;
mod sweep;
mod ticket;
mod token;
mod wake;

pub use config::FileConfig;
pub use connect::register;
pub use file::HeldFile;
