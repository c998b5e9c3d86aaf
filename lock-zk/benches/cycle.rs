//! What an uncontended cycle and a hand-off cost, beside the two bare requests that a cycle consists of.
//!
//! `cargo bench -p lock-zk` starts a ZooKeeper of its own.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;
use lock_conformance::servers::ZooKeeperServer;
use lock_core::{Claim, ClientOptions, Clock, Connect, Context, Identity, LockName, Locks};
use lock_zk::ZkConfig;
use lock_zk::zookeeper_client::{Acls, Client, CreateMode};

const CYCLES: u64 = 2_000;
const TASKS: u64 = 128;
const ROUNDS: usize = 3;

fn main() {
    let server = ZooKeeperServer::builder()
        .java("-Dznode.container.checkIntervalMs=3600000")
        .start();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        println!("{:<34} {:>10} {:>10} {:>12}", "", "p50", "p99", "cycles/s");
        for _ in 0..ROUNDS {
            bare(&server, 1, CYCLES).await;
            backend(&server, 1, CYCLES).await;
            locks(&server, 1, CYCLES).await;
        }
        for _ in 0..ROUNDS {
            bare(&server, TASKS, CYCLES / 20).await;
            backend(&server, TASKS, CYCLES / 20).await;
            locks(&server, TASKS, CYCLES / 20).await;
        }
        hand_offs(&server, 4, CYCLES / 4).await;
    });
}

fn config(server: &ZooKeeperServer) -> ZkConfig {
    ZkConfig::new("127.0.0.1", server.port())
}

async fn bare(server: &ZooKeeperServer, tasks: u64, cycles: u64) {
    let client = Client::connect(&server.connect_string())
        .await
        .expect("it runs");
    let cycle = |task: u64| {
        let client = client.clone();
        async move {
            let options = CreateMode::Ephemeral.with_acls(Acls::anyone_all());
            let path = format!("/bare-{task}");
            client.create(&path, &[], &options).await.expect("it runs");
            client.delete(&path, None).await.expect("it runs");
        }
    };
    measure("create and delete", tasks, cycles, cycle).await;
}

async fn backend(server: &ZooKeeperServer, tasks: u64, cycles: u64) {
    let identity = Identity::of_this_process("bench");
    let backend = config(server)
        .connect(Context::new(identity.clone()))
        .await
        .expect("it runs");
    let cycle = |task: u64| {
        let name: LockName = format!("backend:{task}").parse().expect("a good name");
        let claim = Claim::new(name, identity.clone(), Duration::from_secs(60));
        let backend = Arc::clone(&backend);
        async move {
            backend.acquire(&claim).await.expect("free");
            backend.release(&claim).await.expect("it runs");
        }
    };
    measure("the backend alone", tasks, cycles, cycle).await;
    backend.close().await.expect("closed");
}

async fn locks(server: &ZooKeeperServer, tasks: u64, cycles: u64) {
    let locks = Locks::open(config(server), ClientOptions::default())
        .await
        .expect("it runs");
    let cycle = |task: u64| {
        let mutex = locks.mutex(format!("lock:{task}"));
        async move {
            let guard = mutex.acquire().await.expect("free");
            guard.release().await.expect("it runs");
        }
    };
    measure("acquire and release", tasks, cycles, cycle).await;
    let closed = locks.shutdown(Duration::from_secs(5)).await;
    closed.expect("open until now");
}

/// So many clients take turns at one lock.
async fn hand_offs(server: &ZooKeeperServer, clients: u64, cycles: u64) {
    let mut all = Vec::new();
    for _ in 0..clients {
        let locks = Locks::open(config(server), ClientOptions::default()).await;
        all.push(locks.expect("it runs"));
    }
    let all = Arc::new(all);
    let cycle = |task: u64| {
        let mutex = all[usize::try_from(task).expect("few")].mutex("one");
        async move {
            let guard = mutex.acquire().await.expect("granted in turn");
            guard.release().await.expect("it runs");
        }
    };
    measure("hand-offs between clients", clients, cycles, cycle).await;
}

/// Runs `cycle` in so many tasks, so many times each, and prints what one takes.
async fn measure<C, F>(what: &str, tasks: u64, cycles: u64, cycle: C)
where
    C: Fn(u64) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let clock = Clock::system();
    let began = clock.now();
    let running = (0..tasks).map(|task| {
        let work: Vec<F> = (0..cycles).map(|_| cycle(task)).collect();
        let clock = clock.clone();
        tokio::spawn(async move {
            let mut times = Histogram::<u64>::new(3).expect("three digits");
            for cycle in work {
                let began = clock.now();
                cycle.await;
                let took = clock.now().saturating_since(began).as_nanos();
                times
                    .record(u64::try_from(took).unwrap_or(u64::MAX))
                    .expect("it grows");
            }
            times
        })
    });
    let mut times = Histogram::<u64>::new(3).expect("three digits");
    for task in running.collect::<Vec<_>>() {
        times
            .add(task.await.expect("no panic"))
            .expect("the same digits");
    }
    let seconds = clock.now().saturating_since(began).as_secs_f64();
    println!(
        "{:<34} {:>10} {:>10} {:>12.0}",
        format!("{what}, {tasks} task{}", if tasks == 1 { "" } else { "s" }),
        format!("{:.0?}", Duration::from_nanos(times.value_at_quantile(0.5))),
        format!(
            "{:.0?}",
            Duration::from_nanos(times.value_at_quantile(0.99))
        ),
        f64::from(u32::try_from(times.len()).unwrap_or(u32::MAX)) / seconds,
    );
}
