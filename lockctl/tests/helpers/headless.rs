//! Writes its number into the file `pid`, ends its first thread, and runs on in another.
//!
//! Compiled by the test that needs it: ending the first thread alone takes a call that is unsafe.

use std::ffi::c_long;
use std::time::Duration;
use std::{fs, process, thread};

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
}

const EXIT_THIS_THREAD: c_long = if cfg!(target_arch = "x86_64") { 60 } else { 93 };

fn main() {
    fs::write("pid", format!("{}\n", process::id())).expect("written");
    thread::spawn(|| thread::sleep(Duration::from_secs(300)));
    // SAFETY: nothing of this thread is used by the other one.
    unsafe { syscall(EXIT_THIS_THREAD, 0) };
}
