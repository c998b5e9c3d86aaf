//! `etcdctl`, for what needs etcd's own protocol.

use std::env;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use crate::servers::error::StartError;

const PROGRAM: &str = "etcdctl";

pub(super) const INSTALL: &str = "apt-get install etcd-server etcd-client";

/// No call takes this long on a server that runs.
const TIMEOUT: &str = "10s";

/// Says so if it is not installed.
pub(super) fn find() -> Result<(), StartError> {
    match Command::new(PROGRAM).arg("version").output() {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(StartError::Missing {
            what: PROGRAM.to_owned(),
            install: INSTALL,
        }),
        Err(error) => Err(error.into()),
    }
}

/// How to call it.
#[derive(Debug)]
pub(super) struct Ctl {
    pub(super) endpoints: Vec<String>,
    /// With it, TLS is spoken.
    pub(super) ca: Option<PathBuf>,
    /// root's password, once users must log in.
    pub(super) password: Option<String>,
}

impl Ctl {
    /// Runs it with these words; gives what it prints.
    pub(super) fn run(&self, words: &[&str]) -> io::Result<String> {
        let mut command = Command::new(PROGRAM);
        command
            // It takes settings from the environment; a test must not depend on who runs it.
            .env_clear()
            .envs(env::var_os("PATH").map(|path| ("PATH", path)))
            .env("ETCDCTL_API", "3")
            .args(["--dial-timeout", TIMEOUT, "--command-timeout", TIMEOUT])
            .arg("--endpoints")
            .arg(self.endpoints.join(","))
            .stdin(Stdio::null());
        if let Some(ca) = &self.ca {
            command.arg("--cacert").arg(ca);
        }
        if let Some(password) = &self.password {
            command.args(["--user", &format!("root:{password}")]);
        }
        let output = command.args(words).output()?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            return Err(io::Error::other(format!(
                "etcdctl {words:?}: {}",
                why.trim()
            )));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    pub(super) fn keys(&self) -> io::Result<Vec<String>> {
        let answer = self.json(&["get", "", "--from-key", "--keys-only"])?;
        let mut keys = Vec::new();
        // The lists are left out where they are empty.
        for entry in answer["kvs"].as_array().into_iter().flatten() {
            let key = entry["key"].as_str().unwrap_or_default();
            let key = BASE64.decode(key).map_err(io::Error::other)?;
            keys.push(String::from_utf8_lossy(&key).into_owned());
        }
        keys.sort();
        Ok(keys)
    }

    pub(super) fn leases(&self) -> io::Result<Vec<i64>> {
        let answer = self.json(&["lease", "list"])?;
        let leases = answer["leases"].as_array().into_iter().flatten();
        // "id" from 3.4, "ID" from 3.5.
        let id = |lease: &Value| lease["id"].as_i64().or(lease["ID"].as_i64());
        let mut leases: Vec<i64> = leases.filter_map(id).collect();
        leases.sort_unstable();
        Ok(leases)
    }

    pub(super) fn leases_of(&self, prefix: &str) -> io::Result<Vec<i64>> {
        let answer = self.json(&["get", prefix, "--prefix", "--sort-by", "CREATE"])?;
        let keys = answer["kvs"].as_array().into_iter().flatten();
        // Left out where there is none.
        Ok(keys.filter_map(|key| key["lease"].as_i64()).collect())
    }

    pub(super) fn revision(&self) -> io::Result<i64> {
        // Any read tells it.
        let answer = self.json(&["get", "revision", "--keys-only"])?;
        answer["header"]["revision"]
            .as_i64()
            .ok_or_else(|| io::Error::other(format!("no revision in {answer}")))
    }

    fn json(&self, words: &[&str]) -> io::Result<Value> {
        let text = self.run(&[words, &["--write-out", "json"]].concat())?;
        serde_json::from_str(&text).map_err(io::Error::from)
    }
}
