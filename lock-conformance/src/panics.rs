//! What panics while cases run: said in their reports, and never passed over because it happened in
//! the background.

use std::collections::HashMap;
use std::panic;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;

/// What the names of all threads of cases begin with.
const CASE: &str = "case ";

/// What the last panic on a thread with this name said.
static PANICS: Mutex<Option<HashMap<String, String>>> = Mutex::new(None);

/// How many there were on all other threads, those that a backend or core has for itself, and in worker processes.
static ELSEWHERE: AtomicU64 = AtomicU64::new(0);

/// The name of one run of one case, and of all threads of its runtime.
pub(crate) fn thread_name(id: &str) -> String {
    static RUNS: AtomicU64 = AtomicU64::new(0);
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    format!("{CASE}{id} #{run}")
}

/// Keeps what panics on the threads of cases say, for their reports; all others are shown as ever.
pub(crate) fn remember() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let thread = thread::current();
            match thread.name().filter(|name| name.starts_with(CASE)) {
                Some(name) => {
                    let mut panics = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
                    let panics = panics.get_or_insert_default();
                    panics.insert(name.to_owned(), info.to_string());
                }
                None => {
                    ELSEWHERE.fetch_add(1, Ordering::Relaxed);
                    usual(info);
                }
            }
        }));
    });
}

/// Tells `report` what panics in this process from now on: in one that works for another, which would not hear of it.
pub(crate) fn report_to(report: impl Fn(String) + Send + Sync + 'static) {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        usual(info);
        report(info.to_string());
    }));
}

/// Counts a panic in a process that works for this one.
pub(crate) fn heard() {
    ELSEWHERE.fetch_add(1, Ordering::Relaxed);
}

/// What has panicked on the threads of this run since the last time somebody asked.
pub(crate) fn take(thread: &str) -> Option<String> {
    let mut panics = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
    panics.as_mut()?.remove(thread)
}

/// How many panics there have been on threads that belong to no case, since [`remember`].
pub(crate) fn elsewhere() -> u64 {
    ELSEWHERE.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panic_of_a_background_task_is_kept_for_its_own_run_only() {
        remember();
        let (mine, other) = (thread_name("R0.00"), thread_name("R0.00"));
        let thread = thread::Builder::new().name(mine.clone());
        let ended = thread.spawn(|| panic!("on purpose")).expect("a thread");
        assert!(ended.join().is_err());
        assert_eq!(take(&other), None);
        let said = take(&mine).expect("it was kept");
        assert!(said.contains("on purpose"), "{said}");
        assert_eq!(take(&mine), None);
    }
}
