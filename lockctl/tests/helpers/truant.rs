//! Leaves its process group for that of its parent, writes its number into the file `pid`, and runs on.
//!
//! Compiled by the test that needs it: a shell cannot do this, and the calls are unsafe.

use std::ffi::c_int;
use std::os::unix::process::parent_id;
use std::time::Duration;
use std::{fs, process, thread};

unsafe extern "C" {
    fn getpgid(pid: c_int) -> c_int;
    fn setpgid(pid: c_int, group: c_int) -> c_int;
}

fn main() {
    let parent = c_int::try_from(parent_id()).expect("a process id");
    // SAFETY: numbers go in, and a number comes out.
    let left = unsafe { setpgid(0, getpgid(parent)) };
    assert_eq!(left, 0);
    fs::write("pid", format!("{}\n", process::id())).expect("written");
    thread::sleep(Duration::from_secs(300));
}
