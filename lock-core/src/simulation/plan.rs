//! A schedule: all that a seed decides beforehand, as data that can be cut down.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use fastrand::Rng;

/// The names that users fight for.
pub(super) const NAMES: [&str; 2] = ["a", "b"];
/// Until when something may go wrong; from then on the network and the server work.
pub(super) const HEALED: Duration = Duration::from_secs(15);
/// The longest that a message is under way. A tombstone lives for longer.
pub(super) const LATEST: Duration = Duration::from_secs(6);

/// One schedule. Equal plans have equal histories.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) weather: Weather,
    /// For how long the server grants a hand-off until it is confirmed; the whole TTL for `None`.
    pub(super) claim_window: Option<Duration>,
    pub(super) processes: Vec<ProcessPlan>,
    pub(super) users: Vec<UserPlan>,
    pub(super) faults: Vec<Fault>,
}

/// What the network does to each message, in percent of them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Weather {
    pub(super) lost: u32,
    /// Delivered much later than the others.
    pub(super) late: u32,
    /// Delivered once more, later: a request that was sent again, or a push.
    pub(super) copied: u32,
}

/// One client of the lock server, with its clock.
#[derive(Clone, Debug)]
pub(super) struct ProcessPlan {
    /// What its clock shows when the world begins.
    pub(super) origin: Duration,
    /// How much faster than the server's its clock runs, in millionths.
    pub(super) drift: i64,
    pub(super) op_timeout: Duration,
    pub(super) outage_limit: Duration,
    pub(super) ttl: Duration,
    pub(super) max_hold: Option<Duration>,
    /// Whether it is shut down in the end, or just dropped.
    pub(super) shuts_down: bool,
}

#[derive(Clone, Debug)]
pub(super) struct UserPlan {
    pub(super) process: usize,
    pub(super) visits: Vec<Visit>,
}

/// One acquisition, and what is done with it.
#[derive(Clone, Debug)]
pub(super) struct Visit {
    pub(super) after: Duration,
    pub(super) name: &'static str,
    pub(super) ask: Ask,
    pub(super) fixed: bool,
    /// Whether it is asked for under the owner that all users of a process share.
    pub(super) owned: bool,
    /// When the whole visit is dropped, wherever it has come to.
    pub(super) dropped_after: Option<Duration>,
    pub(super) stay: Duration,
    /// How often the holder looks whether it still is one.
    pub(super) pace: Duration,
    pub(super) end: End,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Ask {
    Wait,
    Within(Duration),
    Try,
}

/// How a hold is given up.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Release,
    /// The release is dropped as soon as it has begun.
    ReleaseAbandoned,
    Drop,
    /// Kept without being looked at, for the longest hold to end.
    Forget,
    /// Renewed by hand before it is released.
    RenewAndRelease,
    /// Taken once more by the same owner before both are released.
    TakeAgain,
    /// The stay is spent in [`Guard::run`](crate::Guard::run).
    Run,
}

/// Something that goes wrong at a given time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    pub(super) at: Duration,
    pub(super) lasts: Duration,
    pub(super) kind: FaultKind,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum FaultKind {
    /// Nothing passes between this process and the server; what was sent is lost, or held until it ends.
    Partition { process: usize, held: bool },
    /// The connection breaks, which is noticed at once.
    Reset { process: usize },
    /// The process does not run, as after SIGSTOP; its clock does.
    Pause { process: usize },
    /// The threads of its users are blocked; its background thread is not.
    Block { process: usize },
    /// The process ends without a word.
    Crash { process: usize },
    /// It is shut down under its users.
    Shutdown { process: usize },
    /// The server does not run for a while.
    Stall,
    /// The server is started anew, with or without its data.
    Restart { loses: bool },
    /// An operator breaks whoever holds this.
    Break { name: &'static str },
}

impl Plan {
    /// What `seed` stands for, now and on every machine.
    pub(super) fn of(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let rng = &mut rng;
        let calm = one_in(rng, 4);
        let processes: Vec<_> = (0..rng.usize(1..=3))
            .map(|_| ProcessPlan::of(rng))
            .collect();
        let users = (0..rng.usize(1..=5))
            .map(|_| UserPlan::of(rng, &processes))
            .collect();
        let (weather, faults) = if calm {
            (Weather::default(), Vec::new())
        } else {
            let faults = (0..rng.usize(0..=4))
                .map(|_| Fault::of(rng, processes.len()))
                .collect();
            (Weather::of(rng), faults)
        };
        Self {
            seed,
            weather,
            claim_window: rng.bool().then(|| millis(rng, 400..2_000)),
            processes,
            users,
            faults,
        }
    }

    /// Whether nothing goes wrong in it.
    pub(super) fn is_calm(&self) -> bool {
        let Weather { lost, late, copied } = self.weather;
        self.faults.is_empty() && lost + late + copied == 0
    }

    /// What a calm schedule takes at the most, if nobody waits for longer than for those before.
    pub(super) fn length(&self) -> Duration {
        let visits = self.users.iter().flat_map(|user| &user.visits);
        let longest_lease = self.processes.iter().map(|process| {
            let kept = process.max_hold.unwrap_or_default();
            kept + process.ttl * 2
        });
        let lapse = longest_lease.max().unwrap_or_default();
        visits
            .map(|visit| {
                // What is forgotten lasts until its client gives it up, and a fixed lease until its end.
                let lapse = match visit.end {
                    End::Forget => lapse,
                    _ => Duration::ZERO,
                };
                visit.after + visit.stay + lapse + Duration::from_secs(1)
            })
            .sum()
    }

    /// Whether users are blocked in it.
    pub(super) fn blocks_users(&self) -> bool {
        self.faults
            .iter()
            .any(|fault| matches!(fault.kind, FaultKind::Block { .. }))
    }
}

impl FaultKind {
    pub(super) const fn stops_users_only(self) -> bool {
        matches!(self, Self::Block { .. })
    }
}

impl Weather {
    fn of(rng: &mut Rng) -> Self {
        let mut some = |most| if rng.bool() { rng.u32(1..=most) } else { 0 };
        Self {
            lost: some(15),
            late: some(10),
            copied: some(20),
        }
    }
}

impl ProcessPlan {
    fn of(rng: &mut Rng) -> Self {
        Self {
            origin: millis(rng, 0..1_000_000_000),
            // What R3's allowance has to carry is the whole of it.
            drift: rng.i64(-9_900..=9_900),
            op_timeout: millis(rng, 300..2_000),
            outage_limit: millis(rng, 1_000..6_000),
            ttl: millis(rng, 500..5_000),
            max_hold: one_in(rng, 3).then(|| millis(rng, 1_000..8_000)),
            shuts_down: rng.bool(),
        }
    }
}

impl UserPlan {
    fn of(rng: &mut Rng, processes: &[ProcessPlan]) -> Self {
        let process = rng.usize(..processes.len());
        let ProcessPlan { ttl, max_hold, .. } = processes[process];
        let visits = (0..rng.usize(1..=4))
            .map(|_| Visit::of(rng, ttl, max_hold.is_some()))
            .collect();
        Self { process, visits }
    }
}

impl Visit {
    fn of(rng: &mut Rng, ttl: Duration, may_forget: bool) -> Self {
        let ask = match rng.u8(..6) {
            0 => Ask::Try,
            1 | 2 => Ask::Within(millis(rng, 1..4_000)),
            _ => Ask::Wait,
        };
        let owned = one_in(rng, 5);
        let end = match rng.u8(..10) {
            0 => End::ReleaseAbandoned,
            1 | 2 => End::Drop,
            3 if may_forget => End::Forget,
            4 => End::RenewAndRelease,
            5 if owned => End::TakeAgain,
            6 => End::Run,
            _ => End::Release,
        };
        // Most are short; some last for several leases.
        let stay = if one_in(rng, 4) {
            ttl.mul_f64(1.0 + 2.5 * rng.f64())
        } else {
            millis(rng, 0..300)
        };
        Self {
            after: millis(rng, 0..1_500),
            name: if one_in(rng, 4) { NAMES[1] } else { NAMES[0] },
            ask,
            fixed: one_in(rng, 6),
            owned,
            dropped_after: one_in(rng, 4).then(|| {
                let most = if rng.bool() { 30 } else { 3_000 };
                Duration::from_micros(rng.u64(0..most * 1_000))
            }),
            stay,
            pace: millis(rng, 50..600),
            end,
        }
    }
}

impl Fault {
    fn of(rng: &mut Rng, processes: usize) -> Self {
        let process = rng.usize(..processes);
        let kind = match rng.u8(..14) {
            0 | 1 => FaultKind::Partition {
                process,
                held: rng.bool(),
            },
            2 | 3 => FaultKind::Reset { process },
            4..=6 => FaultKind::Pause { process },
            7 => FaultKind::Block { process },
            8 => FaultKind::Crash { process },
            9 => FaultKind::Shutdown { process },
            10 => FaultKind::Stall,
            11 => FaultKind::Restart { loses: false },
            12 => FaultKind::Restart { loses: true },
            _ => FaultKind::Break {
                name: NAMES[rng.usize(..NAMES.len())],
            },
        };
        Self {
            at: millis(rng, 0..8_000),
            lasts: millis(rng, 1..6_000),
            kind,
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:?}, claim window {:?}",
            self.weather, self.claim_window
        )?;
        for (number, process) in self.processes.iter().enumerate() {
            writeln!(f, "process {number}: {process:?}")?;
        }
        for (number, user) in self.users.iter().enumerate() {
            writeln!(f, "user {number} of process {}:", user.process)?;
            for visit in &user.visits {
                writeln!(f, "  {visit:?}")?;
            }
        }
        for fault in &self.faults {
            writeln!(f, "{fault:?}")?;
        }
        Ok(())
    }
}

fn millis(rng: &mut Rng, range: Range<u64>) -> Duration {
    Duration::from_millis(rng.u64(range))
}

fn one_in(rng: &mut Rng, of: u8) -> bool {
    rng.u8(..of) == 0
}
