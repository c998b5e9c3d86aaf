//! Sweepers: nobody takes them for holders, and nobody holds a file that one has removed.

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use lock_core::Cursor;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::fixture::{Fixture, take};

/// A lock as a sweeper takes it; it lasts until the file is dropped.
fn sweep(path: &Path) -> Option<File> {
    let file = OpenOptions::new().read(true).write(true).open(path);
    let file = file.expect("the lock has a file");
    let first_byte = libc::flock {
        l_type: libc::c_short::try_from(libc::F_WRLCK).expect("small"),
        l_whence: libc::c_short::try_from(libc::SEEK_SET).expect("small"),
        l_start: 0,
        l_len: 1,
        l_pid: 0,
    };
    match fcntl(file.as_fd(), FcntlArg::F_OFD_SETLK(&first_byte)) {
        Ok(_) => Some(file),
        Err(Errno::EAGAIN) => None,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn try_of_a_free_lock_succeeds_however_often_its_file_is_swept() {
    let fixture = Fixture::new();
    let locks = fixture.client().await;
    let first = take(&locks, "n").await.expect("the lock is free");
    first.release().await.expect("an answer");
    let (path, done) = (fixture.path("n.lock"), AtomicBool::new(false));
    let mut swept = 0;
    let mut granted = 0;
    thread::scope(|scope| {
        let sweeper = scope.spawn(|| {
            let mut swept = 0;
            while !done.load(Ordering::Relaxed) {
                swept += u32::from(sweep(&path).is_some());
            }
            swept
        });
        let tries = async {
            for _ in 0..500 {
                let guard = take(&locks, "n").await;
                granted += u32::from(guard.is_some());
                if let Some(guard) = guard {
                    guard.release().await.expect("an answer");
                }
            }
        };
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(tries));
        done.store(true, Ordering::Relaxed);
        swept = sweeper.join().expect("no panic");
    });
    assert_eq!(granted, 500);
    assert!(swept > 0, "nobody was in the way");
}

#[tokio::test]
async fn sweeper_that_is_stopped_is_no_holder_and_holds_nobody_up_for_long() {
    let fixture = Fixture::new();
    let locks = fixture.client().await;
    // What a process that was killed leaves: a holder in the record, and nobody's lock.
    let content = "{\"distlock\":1,\"name\":\"n\",\"token\":5,\"holder\":{\"nonce\":\"00000000000000000000000000000001\",\"identity\":\"1 host x\",\"since\":1}}\n";
    std::fs::write(fixture.path("n.lock"), content).expect("writes");
    let sweeper = sweep(&fixture.path("n.lock")).expect("nobody has it");
    assert!(take(&locks, "n").await.is_none(), "nobody may have it now");
    let state = locks.inspect("n").await.expect("a state");
    assert!(state.holders.is_empty(), "{state:?}");
    let page = locks.list("", Cursor::default()).await.expect("a page");
    assert!(page.names.is_empty());
    drop(sweeper);
    assert!(take(&locks, "n").await.is_some());
}
