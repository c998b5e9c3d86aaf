//! The command line itself: mistakes, help, what is generated.

use crate::fixture::{Place, finish, lockctl};

#[test]
fn mistakes_are_one_line_and_the_right_code() {
    let place = Place::redis();
    for (words, code, part) in [
        ("", 64, "subcommand"),
        ("frobnicate", 64, "frobnicate"),
        ("run", 64, "<NAME>"),
        ("run a", 64, "<COMMAND>"),
        ("run a true", 64, "unexpected argument"),
        ("run --ttl soon a -- true", 64, "not a duration"),
        ("run --wait 1 a -- true", 64, "not a duration"),
        ("run --try --wait 1s a -- true", 64, "cannot be used with"),
        (
            "run --ttl 0s --kill-after 0s a -- true",
            64,
            "less than half",
        ),
        ("run --ttl 4s a -- true", 64, "less than half"),
        (
            "run --kill-after 500000000000years a -- true",
            64,
            "less than half",
        ),
        ("--url file:///tmp/%00 run a -- true", 64, "NUL character"),
        (
            "--url memory://?ttl=3s run a -- true",
            64,
            "not less than half of 3s",
        ),
        ("run --ttl 1ms --kill-after 0s a -- true", 64, "TTL"),
        (
            "run --shared a -- true",
            64,
            "not supported by this backend",
        ),
        (
            "run --permits 3 a -- true",
            64,
            "not supported by this backend",
        ),
        ("run --permits 0 a -- true", 64, "--permits"),
        ("--format xml list", 64, "xml"),
        ("--url redis list", 64, "scheme://"),
        ("--url foo://x list", 64, "unknown scheme foo://"),
        ("--url redis://127.0.0.1:1/?nonsense=1 list", 64, "nonsense"),
        ("--url redis://127.0.0.1:1/ list", 69, "127.0.0.1:1"),
        ("--url zk://127.0.0.1:1/ list", 69, "127.0.0.1:1"),
        (
            "--url redis://127.0.0.1:1/ run a -- true",
            69,
            "127.0.0.1:1",
        ),
        ("release a --token 0 --force", 64, "no fencing token"),
        ("release a --force", 64, "--token"),
        ("completions nosuchshell", 64, "nosuchshell"),
    ] {
        finish(&mut place.lockctl(words)).failed_with(code, part);
    }
    let empty = finish(place.lockctl("run").args(["", "--", "true"]));
    empty.failed_with(64, "must not be empty");
    let control = finish(place.lockctl("status").arg("a\nb"));
    control.failed_with(64, "control");
    let long = finish(place.lockctl("status").arg("x".repeat(1025)));
    long.failed_with(64, "1024");
}

#[test]
fn password_of_a_url_is_not_shown() {
    let url = "redis://app:hunter2@127.0.0.1:1/";
    let done = finish(lockctl("list").env("LOCK_URL", url));
    done.failed_with(69, "127.0.0.1:1");
    assert!(!done.stderr.contains("hunter2"));
    let help = finish(lockctl("--help").env("LOCK_URL", url));
    assert!(help.stdout.contains("LOCK_URL"));
    assert!(!help.stdout.contains("hunter2"));
}

#[test]
fn every_command_has_help_with_examples() {
    let help = finish(&mut lockctl("--help"));
    assert_eq!((help.code, help.stderr.as_str()), (0, ""));
    let commands: Vec<_> = commands(&help.stdout);
    assert!(commands.len() >= 6, "{commands:?}");
    for command in commands {
        let help = finish(&mut lockctl(&format!("{command} --help")));
        assert_eq!(help.code, 0, "{help:?}");
        assert!(help.stdout.contains("Examples:"), "{command}: {help:?}");
        assert!(
            help.stdout.contains(&format!("lockctl {command}")),
            "{help:?}"
        );
    }
}

/// The commands that the help lists, except the one that shows help.
fn commands(help: &str) -> Vec<String> {
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    list.take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|word| !word.is_empty() && *word != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn version_is_the_crates() {
    let done = finish(&mut lockctl("--version"));
    assert_eq!(
        done.stdout,
        concat!("lockctl ", env!("CARGO_PKG_VERSION"), "\n")
    );
}

#[test]
fn completions_and_man_page_know_every_command() {
    let help = finish(&mut lockctl("--help"));
    let man = finish(&mut lockctl("man"));
    assert_eq!(man.code, 0);
    assert!(man.stdout.contains(".TH lockctl 1"), "{man:?}");
    for shell in ["bash", "zsh", "fish"] {
        let script = finish(&mut lockctl(&format!("completions {shell}")));
        assert_eq!(script.code, 0);
        for command in commands(&help.stdout) {
            assert!(script.stdout.contains(&command), "{shell}: {command}");
            let title = format!("COMMAND {}", command.to_uppercase());
            assert!(man.stdout.contains(&title), "{title}");
        }
        // What is for lockctl itself is for nobody to complete.
        assert!(!script.stdout.contains("__guardian"));
    }
}

#[test]
fn reader_that_leaves_early_is_no_failure() {
    let mut head = std::process::Command::new("sh");
    head.args(["-c", "\"$LOCKCTL\" man | head -1; exit $?"])
        .env("LOCKCTL", env!("CARGO_BIN_EXE_lockctl"));
    let done = finish(&mut head);
    assert_eq!((done.code, done.stderr.as_str()), (0, ""));
}
