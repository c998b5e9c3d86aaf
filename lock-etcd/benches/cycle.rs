//! What hand-offs cost, beside a bare put and beside the client library's own lock.
//!
//! `cargo bench -p lock-etcd` starts an etcd of its own and prints:
//!
//! * the round trip of one put, a cycle of acquire and release, and a hand-off to a waiter that has
//!   stood in the queue for 15 ms, from before the release to the grant, each with its ratio to the put;
//! * hand-offs per second of four processes with four tasks each on one name, and the same with
//!   `etcd_client`'s `lock()`.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;
use lock_conformance::servers::EtcdServer;
use lock_core::{
    Backend, Claim, ClientOptions, Clock, Connect, Context, Identity, LockName, Locks, Reach,
};
use lock_etcd::EtcdConfig;
use lock_etcd::etcd_client::{Client, LockOptions};

const SAMPLES: u64 = 500;
const QUEUED_BEFORE: Duration = Duration::from_millis(15);
const PROCESSES: usize = 4;
const TASKS: usize = 4;
const MEASURED: Duration = Duration::from_secs(5);
const TTL: Duration = Duration::from_secs(10);

fn main() {
    let mut words = std::env::args().skip(1);
    let worker = (words.next(), words.next(), words.next());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    match worker {
        (Some(kind), Some(port), _) if kind == "ours" || kind == "theirs" => {
            let port = port.parse().expect("a port");
            println!("{}", runtime.block_on(take_turns(&kind, port)));
        }
        _ => {
            let server = EtcdServer::start();
            runtime.block_on(latencies(&server));
            throughput(&server);
        }
    }
}

fn config(port: u16) -> EtcdConfig {
    EtcdConfig::new([("127.0.0.1", port)])
}

async fn backend(port: u16) -> Arc<dyn Backend> {
    let context = Context::new(Identity::of_this_process("bench"));
    config(port).connect(context).await.expect("connects")
}

fn claim() -> Claim {
    let name = LockName::new("bench").expect("a name");
    Claim::new(name, Identity::of_this_process("bench"), TTL)
}

async fn latencies(server: &EtcdServer) {
    let clock = Clock::system();
    let (one, two) = (backend(server.port()).await, backend(server.port()).await);
    let mut etcd = Client::connect(server.endpoints(), None)
        .await
        .expect("connects");
    let mut histograms = [(); 3].map(|()| Histogram::<u64>::new(3).expect("three digits"));
    let [puts, cycles, hand_offs] = &mut histograms;
    let record = |into: &mut Histogram<u64>, took: Duration| {
        let micros = u64::try_from(took.as_micros()).expect("short");
        into.record(micros).expect("in range");
    };
    // The three in turn, so that whatever else the machine does hits all of them.
    for sample in 0..SAMPLES {
        let began = clock.now();
        etcd.put("bare", sample.to_string(), None)
            .await
            .expect("put");
        record(puts, clock.now().saturating_since(began));

        let held = claim();
        let began = clock.now();
        one.acquire(&held).await.expect("granted");
        one.release(&held).await.expect("released");
        record(cycles, clock.now().saturating_since(began));

        let (held, waiting) = (claim(), claim());
        one.acquire(&held).await.expect("granted");
        let task = tokio::spawn({
            let (two, waiting, clock) = (Arc::clone(&two), waiting.clone(), clock.clone());
            async move {
                two.acquire(&waiting).await.expect("granted");
                clock.now()
            }
        });
        while waiting.progress.reach() != Reach::Queued {
            tokio::task::yield_now().await;
        }
        clock.sleep(QUEUED_BEFORE).await;
        let began = clock.now();
        let (released, granted) = tokio::join!(one.release(&held), task);
        assert!(released.expect("released"));
        record(
            hand_offs,
            granted.expect("no panic").saturating_since(began),
        );
        two.release(&waiting).await.expect("released");
    }
    let base = puts.value_at_quantile(0.5);
    println!("{:<44} {:>9} {:>9} {:>8}", "", "p50", "p99", "of a put");
    for (what, histogram) in ["put", "acquire + release", "hand-off"]
        .iter()
        .zip(&histograms)
    {
        let (middle, slow) = (
            histogram.value_at_quantile(0.5),
            histogram.value_at_quantile(0.99),
        );
        let tenths = middle * 10 / base.max(1);
        println!(
            "{what:<44} {middle:>6} µs {slow:>6} µs {:>6}.{}",
            tenths / 10,
            tenths % 10
        );
    }
}

/// Runs the workers of both kinds, one after the other.
fn throughput(server: &EtcdServer) {
    let mut rates = Vec::new();
    for kind in ["theirs", "ours"] {
        let program = std::env::current_exe().expect("this program");
        let port = server.port().to_string();
        let workers: Vec<_> = (0..PROCESSES)
            .map(|_| {
                Command::new(&program)
                    .args([kind, &port])
                    .stdout(Stdio::piped())
                    .spawn()
                    .expect("starts")
            })
            .collect();
        let mut sections = 0;
        for worker in workers {
            let output = worker.wait_with_output().expect("ends");
            let text = String::from_utf8(output.stdout).expect("a number");
            sections += text.trim().parse::<u64>().expect("a number");
        }
        let rate = sections / MEASURED.as_secs();
        println!(
            "{:<44} {rate:>6} hand-offs/s",
            format!("{PROCESSES} processes of {TASKS} tasks, {kind}")
        );
        rates.push(rate);
    }
    let tenths = rates[1] * 10 / rates[0].max(1);
    println!(
        "{:<44} {:>6}.{}",
        "ours to theirs",
        tenths / 10,
        tenths % 10
    );
}

/// How many sections the tasks of this process have had in the measured time.
async fn take_turns(kind: &str, port: u16) -> u64 {
    let clock = Clock::system();
    let end = clock.now() + MEASURED;
    let mut tasks = Vec::new();
    if kind == "ours" {
        let locks = Locks::open(config(port), ClientOptions::default())
            .await
            .expect("opens");
        for _ in 0..TASKS {
            let (mutex, clock) = (locks.mutex("bench").ttl(TTL), clock.clone());
            tasks.push(tokio::spawn(async move {
                let mut sections = 0;
                while clock.now() < end {
                    let guard = mutex.acquire().await.expect("granted");
                    guard.release().await.expect("released");
                    sections += 1;
                }
                sections
            }));
        }
    } else {
        for _ in 0..TASKS {
            let endpoint = format!("127.0.0.1:{port}");
            let mut etcd = Client::connect([endpoint], None).await.expect("connects");
            let lease = etcd.lease_grant(60, None).await.expect("granted").id();
            let clock = clock.clone();
            tasks.push(tokio::spawn(async move {
                let mut sections = 0;
                while clock.now() < end {
                    let options = LockOptions::new().with_lease(lease);
                    let held = etcd.lock("theirs", Some(options)).await.expect("granted");
                    etcd.unlock(held.key()).await.expect("released");
                    sections += 1;
                }
                sections
            }));
        }
    }
    let mut sections = 0;
    for task in tasks {
        sections += task.await.expect("no panic");
    }
    sections
}
