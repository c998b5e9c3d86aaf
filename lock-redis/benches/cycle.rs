//! What an uncontended cycle costs, beside the two bare scripts that it consists of.
//!
//! `cargo bench -p lock-redis` starts a Redis of its own. The bare scripts run on the caller's own
//! runtime, without a background thread: the difference is what ADR 0004 costs a foreground call.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;
use lock_conformance::servers::RedisServer;
use lock_core::{
    Claim, ClientOptions, Clock, Connect, Context, Identity, LockName, LockUrl, Locks,
};
use lock_redis::RedisConfig;
use lock_redis::redis::{Client, Script};

const CYCLES: u64 = 5_000;
const TASKS: u64 = 128;
const ROUNDS: usize = 3;

fn main() {
    let server = RedisServer::start();
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
            bare(&server, TASKS, CYCLES / 10).await;
            backend(&server, TASKS, CYCLES / 10).await;
            locks(&server, TASKS, CYCLES / 10).await;
        }
    });
}

async fn bare(server: &RedisServer, tasks: u64, cycles: u64) {
    let client = Client::open(server.url()).expect("a good URL");
    let connection = client
        .get_multiplexed_async_connection()
        .await
        .expect("it runs");
    let set = Script::new("return redis.call('SET', KEYS[1], ARGV[1], 'PX', 10000)");
    let delete = Script::new("return redis.call('DEL', KEYS[1])");
    let scripts = Arc::new((set, delete));
    let cycle = |task: u64| {
        let (mut connection, scripts) = (connection.clone(), Arc::clone(&scripts));
        let key = format!("bare:{task}");
        async move {
            let mut set = scripts.0.key(&key);
            let () = set
                .arg(task)
                .invoke_async(&mut connection)
                .await
                .expect("it runs");
            let _: u64 = scripts
                .1
                .key(&key)
                .invoke_async(&mut connection)
                .await
                .expect("it runs");
        }
    };
    measure("two bare scripts", tasks, cycles, cycle).await;
}

async fn backend(server: &RedisServer, tasks: u64, cycles: u64) {
    let mut url = LockUrl::parse(&server.url()).expect("a good URL");
    let config = RedisConfig::from_url(&mut url).expect("a good URL");
    let identity = Identity::of_this_process("bench");
    let backend = config
        .connect(Context::new(identity.clone()))
        .await
        .expect("it runs");
    let cycle = |task: u64| {
        let name: LockName = format!("backend:{task}").parse().expect("a good name");
        let claim = Claim::new(name, identity.clone(), Duration::from_secs(10));
        let backend = Arc::clone(&backend);
        async move {
            backend.acquire(&claim).await.expect("free");
            backend.release(&claim).await.expect("it runs");
        }
    };
    measure("the backend alone", tasks, cycles, cycle).await;
}

async fn locks(server: &RedisServer, tasks: u64, cycles: u64) {
    let mut url = LockUrl::parse(&server.url()).expect("a good URL");
    let config = RedisConfig::from_url(&mut url).expect("a good URL");
    let locks = Locks::open(config, ClientOptions::default())
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
    locks
        .shutdown(Duration::from_secs(5))
        .await
        .expect("open until now");
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
