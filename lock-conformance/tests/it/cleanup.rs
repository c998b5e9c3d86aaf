//! What a killed test process leaves behind: nothing.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::{env, fs, io};

use lock_conformance::servers::{EtcdServer, RedisPair, RedisServer, ZooKeeperServer};

use crate::poll;

/// Set for the helper process, to what it is to start.
const HELPER: &str = "LOCK_TEST_SERVER_HELPER";

#[test]
fn redis_dies_with_a_killed_test_process() {
    kill_a_helper("redis");
}

#[test]
fn redis_and_its_replica_die_with_a_killed_test_process() {
    kill_a_helper("pair");
}

#[test]
fn zookeeper_with_a_clock_of_its_own_dies_with_a_killed_test_process() {
    if ZooKeeperServer::start_or_skip().is_none() {
        return;
    }
    kill_a_helper("stepped");
}

#[test]
fn zookeeper_dies_with_a_killed_test_process() {
    if ZooKeeperServer::start_or_skip().is_none() {
        return;
    }
    kill_a_helper("zookeeper");
}

#[test]
fn isolated_etcd_members_and_their_rules_go_with_a_killed_test_process() {
    let etcd = EtcdServer::builder().isolatable();
    if etcd.start_or_skip().is_none() {
        return;
    }
    kill_a_helper("etcd");
}

/// Starts a helper that has servers, kills it, and waits until nothing of them is left.
fn kill_a_helper(what: &str) {
    let mut helper = Command::new(env::current_exe().unwrap())
        .args(["--exact", "cleanup::helper_holds_a_server", "--ignored"])
        .arg("--nocapture")
        .env(HELPER, what)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(helper.stdout.take().unwrap()).lines();
    let line = lines
        .find_map(|line| Some(line.ok()?.strip_prefix("servers: ")?.to_owned()))
        .expect("the helper prints which servers it has");
    let pids: Vec<u32> = line.split(' ').map(|pid| pid.parse().unwrap()).collect();
    // Each server runs in its own directory.
    let dirs: Vec<PathBuf> = pids
        .iter()
        .map(|pid| fs::read_link(format!("/proc/{pid}/cwd")).unwrap())
        .collect();
    assert!(dirs.iter().all(|dir| dir.exists()));
    let rules: Vec<String> = tables_about(&pids);
    assert_eq!(rules.is_empty(), what != "etcd", "{rules:?}");

    // Nothing in shared memory has a server's name either.
    let shared = |pid: &u32| {
        let names = ["faketime_shm_", "sem.faketime_sem_"];
        names
            .iter()
            .any(|name| PathBuf::from(format!("/dev/shm/{name}{pid}")).exists())
    };
    assert!(!pids.iter().any(shared));

    helper.kill().unwrap();
    helper.wait().unwrap();
    for (pid, dir) in pids.iter().zip(&dirs) {
        assert!(poll(|| !is_alive(*pid)), "a server lives on");
        assert!(poll(|| !dir.exists()), "{} stays", dir.display());
    }
    assert!(poll(|| rules.iter().all(|table| !tables().contains(table))));
}

#[test]
#[ignore = "the process that the tests above kill"]
fn helper_holds_a_server() {
    let Ok(what) = env::var(HELPER) else {
        return;
    };
    match what.as_str() {
        "redis" => {
            let server = RedisServer::start();
            // A restart first: the guardian must know the latest process, not the first.
            server.restart();
            hold(&[server.pid()]);
        }
        "pair" => {
            let pair = RedisPair::start();
            hold(&[pair.pid(), pair.replica().pid()]);
        }
        "stepped" => {
            let server = ZooKeeperServer::builder().steppable_clock().start();
            server.set_clock_offset(60).unwrap();
            hold(&[server.member(0).pid()]);
        }
        "zookeeper" => {
            let server = ZooKeeperServer::start();
            server.restart();
            hold(&[server.member(0).pid()]);
        }
        _ => {
            let server = EtcdServer::builder().members(3).isolatable().start();
            server.isolate(0);
            hold(&[0, 1, 2].map(|i| server.member(i).pid()));
        }
    }
}

/// Says which servers there are, and waits to be killed, or for the end of the process that was to do it.
#[expect(clippy::print_stdout, reason = "the parent process reads it")]
fn hold(pids: &[Option<u32>]) {
    let pids: Vec<String> = pids.iter().map(|pid| pid.unwrap().to_string()).collect();
    println!("\nservers: {}", pids.join(" "));
    let _ = io::stdin().read(&mut [0]);
    loop {
        std::thread::park();
    }
}

/// The names of tables of ours that have rules about the users these processes run as.
fn tables_about(pids: &[u32]) -> Vec<String> {
    let users: Vec<String> = pids
        .iter()
        .map(|pid| fs::read_to_string(format!("/proc/{pid}/status")).unwrap())
        .map(|status| {
            status
                .split("Uid:\t")
                .nth(1)
                .unwrap()
                .split('\t')
                .next()
                .unwrap()
                .to_owned()
        })
        .collect();
    tables()
        .into_iter()
        .filter(|table| {
            let rules = nft(&["list", "table", "inet", table]);
            users
                .iter()
                .any(|user| rules.contains(&format!("skuid {user} ")))
        })
        .collect()
}

fn tables() -> Vec<String> {
    let list = nft(&["list", "tables"]);
    let names = list
        .lines()
        .filter_map(|line| line.strip_prefix("table inet "));
    names
        .filter(|name| name.starts_with("distlock_"))
        .map(str::to_owned)
        .collect()
}

fn nft(words: &[&str]) -> String {
    // Where it is missing there are no rules.
    let output = Command::new("nft").args(words).output();
    output.map_or(String::new(), |output| {
        String::from_utf8(output.stdout).unwrap()
    })
}

pub(crate) fn is_alive(pid: u32) -> bool {
    // A zombie of a killed helper, waiting for whoever adopted it, is dead enough.
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(") ").unwrap().1.starts_with('Z'))
}
