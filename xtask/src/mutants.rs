//! Mutants of core: a copy of it with every defect of `core.json` behind a switch, and the cases of the
//! suite that have to fail when the switch is on, and pass when it is off.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::workspace::Workspace;

const TABLE: &str = "lock-conformance/tests/mutants/core.json";
/// What it takes to run the suite on core's own backend.
const CRATES: [&str; 2] = ["lock-core", "lock-conformance"];
/// Names the mutant that a program built from the copy is to be.
const SWITCH: &str = "LOCK_MUTANT";
/// How many run side by side: nearly all of them only wait.
const THREADS: usize = 8;

/// Runs all of them, and prints the kill table.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let mutants = read(workspace)?;
    let copy = workspace.mutated_copy();
    write_copy(workspace, &copy, &mutants)?;
    let suite = build(workspace, &copy)?;
    let healthy: BTreeSet<&String> = mutants.iter().flat_map(|m| &m.killed_by).collect();
    let mut runs: Vec<Run> = healthy.into_iter().map(|case| (None, case)).collect();
    for mutant in &mutants {
        runs.extend(mutant.killed_by.iter().map(|case| (Some(mutant), case)));
    }
    let survived = judge(&suite, &runs)?;
    for mutant in &mutants {
        let by = mutant.killed_by.join(" ");
        println!("    {:<24} {by:<28} core {}", mutant.name, mutant.wrong);
    }
    ensure!(survived.is_empty(), "{}", survived.join("\n"));
    println!("    {} mutants of core, all killed", mutants.len());
    Ok(())
}

/// A case, on the mutant or without a defect.
type Run<'a> = (Option<&'a Mutant>, &'a String);

#[derive(Debug)]
struct Mutant {
    name: String,
    wrong: String,
    file: String,
    find: String,
    replace: String,
    killed_by: Vec<String>,
}

fn read(workspace: &Workspace) -> Result<Vec<Mutant>> {
    let text = fs::read_to_string(workspace.file(TABLE)).context(TABLE)?;
    let table: Vec<Value> = serde_json::from_str(&text).context(TABLE)?;
    let mutants = table.iter().map(|entry| {
        let text = |key: &str| {
            let value = entry[key].as_str().map(str::to_owned);
            value.with_context(|| format!("{TABLE}: no {key} in {entry}"))
        };
        let cases = entry["killed_by"].as_array().into_iter().flatten();
        let killed_by = cases.filter_map(|case| case.as_str().map(str::to_owned));
        Ok(Mutant {
            name: text("name")?,
            wrong: text("wrong")?,
            file: text("file")?,
            find: text("find")?,
            replace: text("replace")?,
            killed_by: killed_by.collect(),
        })
    });
    mutants.collect()
}

/// A workspace of the crates it takes, with the defects in core.
fn write_copy(workspace: &Workspace, copy: &Path, mutants: &[Mutant]) -> Result<()> {
    let manifest = fs::read_to_string(workspace.file("Cargo.toml"))?;
    let manifest: Vec<String> = manifest.lines().map(only_these).collect();
    write(&copy.join("Cargo.toml"), &manifest.join("\n"))?;
    write(
        &copy.join("Cargo.lock"),
        &fs::read_to_string(workspace.file("Cargo.lock"))?,
    )?;
    for name in CRATES {
        copy_dir(&workspace.file(name), &copy.join(name), &|path, text| {
            let in_core = path.starts_with(workspace.file("lock-core/src"));
            if in_core {
                broken(path, text, mutants)
            } else {
                Ok(text)
            }
        })?;
    }
    Ok(())
}

/// A line of the workspace's manifest, with nothing but these crates as members.
fn only_these(line: &str) -> String {
    for key in ["members", "default-members"] {
        if line.starts_with(&format!("{key} = ")) {
            return format!("{key} = {CRATES:?}");
        }
    }
    line.to_owned()
}

/// A file of core with the defects that belong there.
fn broken(path: &Path, mut text: String, mutants: &[Mutant]) -> Result<String> {
    let here = |mutant: &&Mutant| path.ends_with(format!("src/{}", mutant.file));
    for mutant in mutants.iter().filter(here) {
        let found = text.matches(&mutant.find).count();
        ensure!(
            found == 1,
            "{}: found {found} times in {}",
            mutant.name,
            mutant.file
        );
        let switch = format!("crate::broken({:?})", mutant.name);
        let replace = mutant.replace.replace("$BROKEN", &switch);
        text = text.replace(&mutant.find, &replace);
    }
    if path.ends_with("src/lib.rs") {
        text.push_str(&format!(
            "\nfn broken(name: &str) -> bool {{\n    std::env::var({SWITCH:?}).is_ok_and(|mutant| mutant == name)\n}}\n"
        ));
    }
    Ok(text)
}

/// Copies every file, changed by `change`.
fn copy_dir(
    from: &Path,
    to: &Path,
    change: &dyn Fn(&Path, String) -> Result<String>,
) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let path = entry?.path();
        let target = to.join(path.file_name().context("an entry has a name")?);
        if path.is_dir() {
            copy_dir(&path, &target, change)?;
        } else {
            write(&target, &change(&path, fs::read_to_string(&path)?)?)?;
        }
    }
    Ok(())
}

/// Writes a file unless it says so already: what is not touched is not built again.
fn write(path: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|there| there == text) {
        return Ok(());
    }
    fs::create_dir_all(path.parent().context("a file is in a folder")?)?;
    fs::write(path, text).with_context(|| path.display().to_string())
}

/// Builds the suite on the copy of core; where the program is.
fn build(workspace: &Workspace, copy: &Path) -> Result<PathBuf> {
    let words = "test -p lock-conformance --test mutants --no-run --message-format=json";
    let mut command = workspace.cargo(words.split(' '));
    // Not with everything else: cargo takes packages at the same place of two workspaces for the same.
    command
        .current_dir(copy)
        .env("CARGO_TARGET_DIR", copy.join("target"))
        .stderr(Stdio::inherit());
    let output = command.output().context("cargo test --no-run")?;
    ensure!(output.status.success(), "the mutants of core do not build");
    let messages = String::from_utf8_lossy(&output.stdout);
    let program = messages.lines().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let program = message["executable"].as_str()?;
        (message["target"]["name"] == "mutants").then(|| program.into())
    });
    program.context("cargo names no program")
}

/// What was not as it has to be.
fn judge(suite: &Path, runs: &[Run]) -> Result<Vec<String>> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let work = || -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        while let Some(run) = runs.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
            wrong.extend(verdict(suite, run)?);
        }
        Ok(wrong)
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        let mut wrong = Vec::new();
        for thread in threads {
            match thread.join() {
                Ok(found) => wrong.extend(found?),
                Err(_) => bail!("a thread that runs mutants panicked"),
            }
        }
        Ok(wrong)
    })
}

/// What is wrong with one run, if anything is.
fn verdict(suite: &Path, (mutant, case): &Run) -> Result<Option<String>> {
    let mut command = Command::new(suite);
    command
        .args(["--exact", &format!("Honest::passes_{case}")])
        .env_remove(SWITCH);
    if let Some(mutant) = mutant {
        command.env(SWITCH, &mutant.name);
    }
    let output = command.stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let ended = |how: &str| said.contains(how);
    let wrong = match mutant {
        None if ended(" 1 passed; 0 failed") => return Ok(None),
        None => format!("{case} does not pass without a defect"),
        Some(mutant) if ended("it hangs") => format!("{case} only hangs on {}", mutant.name),
        Some(_) if ended(" 0 passed; 1 failed") => return Ok(None),
        Some(mutant) => format!("{case} does not see that core {}", mutant.wrong),
    };
    Ok(Some(format!("{wrong}:\n{said}")))
}
