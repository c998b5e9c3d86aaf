//! The live view.

use std::fs;
use std::process::{Command, Stdio};

use crate::fixture::{Job, Place, eventually, finish};

#[test]
fn view_shows_the_holder_follows_changes_and_ends_with_q() {
    let place = Place::redis();
    let holder = Job::start(&mut place.script("nightly", "echo up > up; exec sleep 300"));
    place.content("up");
    // A terminal that nobody looks at has no size.
    let line = format!(
        "stty rows 24 cols 80; exec {} watch --every 50ms",
        env!("CARGO_BIN_EXE_lockctl")
    );
    let mut watch = Job::start(
        Command::new("script")
            .args([
                "--quiet",
                "--return",
                "--flush",
                "--command",
                &line,
                "screen",
            ])
            .env("LOCK_URL", &place.url)
            .env("SHELL", "/bin/sh")
            .env("TERM", "xterm")
            .current_dir(&place.dir)
            .stdin(Stdio::piped()),
    );
    let screen = || fs::read(place.path("screen")).unwrap_or_default();
    let shows = |text: &str| {
        eventually(&format!("the screen shows {text}"), || {
            String::from_utf8_lossy(&screen())
                .contains(text)
                .then_some(())
        });
    };
    shows("nightly");
    shows("1 in use");
    drop(holder);
    // Only what changes is drawn: of "0 in use", the zero.
    let before = screen().len();
    eventually("the screen has changed", || {
        (screen().len() > before).then_some(())
    });
    watch.type_in("q");
    assert_eq!(watch.finish().code, 0);
    // The screen is as it was before.
    shows("\u{1b}[?1049l");
}

#[test]
fn view_is_not_for_pipes() {
    let place = Place::redis();
    finish(&mut place.lockctl("watch")).failed_with(64, "needs a terminal");
}
