//! One round: an arena, a workload drawn for it, its faults, and the checks.

use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use std::{fmt, thread};

use fastrand::Rng;

use super::interrupt::Interrupt;
use crate::case::{Case, Failure, Fault, Need};
use crate::harness::{Arena, Harness, Missing};
use crate::history::Recorder;
use crate::panics;
use crate::stand::Stand;
use crate::workload::{Kind, Plan, Setting, Tally, Theme, run};

/// How long the tasks that a round leaves behind may take to end.
const WIND_DOWN: Duration = Duration::from_secs(5);

/// Longer than any round takes that comes to an end: everything in it has a bound, and the machine may be busy.
const LIMIT: Duration = Duration::from_secs(400);

/// What a round was and what was done in it.
pub(super) struct Done {
    pub(super) plan: Plan,
    pub(super) theme: Theme,
    pub(super) tally: Tally,
}

/// How a round ended.
pub(super) enum Ended {
    Good(Box<Done>),
    Bad {
        plan: Option<Plan>,
        what: String,
    },
    /// There is nothing to play this theme on, and that was allowed.
    Missing {
        theme: Theme,
        what: String,
    },
    Interrupted,
}

/// What rounds are drawn from.
#[derive(Clone, Debug)]
pub(super) struct Themes(Vec<Theme>);

impl Themes {
    /// Those for which the harness has the faults.
    pub(super) fn of(harness: &dyn Harness) -> Self {
        let possible = |theme: &Theme| theme.is_possible(|fault| harness.supports(fault));
        Self(Theme::ALL.into_iter().filter(possible).collect())
    }

    pub(super) fn leave_out(&mut self, theme: Theme) {
        self.0.retain(|other| *other != theme);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Themes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |themes: &mut dyn Iterator<Item = Theme>| {
            let names: Vec<_> = themes.map(|theme| theme.to_string()).collect();
            names.join(", ")
        };
        write!(f, "themes: {}", names(&mut self.0.iter().copied()))?;
        let mut out = Theme::ALL
            .into_iter()
            .filter(|theme| !self.0.contains(theme));
        match names(&mut out).as_str() {
            "" => Ok(()),
            out => write!(f, "; not to be had here: {out}"),
        }
    }
}

/// Plays the round that `seed` gives, and gives it up when it takes longer than any can.
pub(super) fn play_in_time(
    harness: Arc<dyn Harness>,
    themes: &Themes,
    seed: u64,
    interrupt: &Interrupt,
) -> Ended {
    let (done, ended) = mpsc::channel();
    let (themes, interrupt) = (themes.clone(), interrupt.clone());
    let playing = thread::Builder::new().name("torture".to_owned());
    let playing = playing.spawn(move || {
        // Nobody listens any more when it came too late.
        let _ = done.send(play(harness, &themes, seed, &interrupt));
    });
    if let Err(error) = playing {
        return bad(error.into());
    }
    let ended = ended.recv_timeout(LIMIT);
    ended.unwrap_or_else(|_| {
        bad(Failure::new(format!(
            "it hangs: no end of the round within {LIMIT:?}"
        )))
    })
}

/// Plays the round that `seed` gives.
fn play(harness: Arc<dyn Harness>, themes: &Themes, seed: u64, interrupt: &Interrupt) -> Ended {
    panics::remember();
    let elsewhere = panics::elsewhere();
    let thread = panics::thread_name("torture");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name(&thread)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return bad(error.into()),
    };
    let drawn = Drawn::of(seed, themes);
    let arena = {
        // A harness may start a proxy on the round's runtime.
        let _entered = runtime.enter();
        panic::catch_unwind(AssertUnwindSafe(|| harness.arena(drawn.case)))
    };
    let ended = match arena {
        Err(_) => bad(Failure::new("the harness panicked")),
        Ok(Err(Missing { what, allowed })) => match allowed {
            true => Ended::Missing {
                theme: drawn.theme,
                what,
            },
            false => bad(Failure::new(what)),
        },
        Ok(Ok(arena)) => {
            let round = AssertUnwindSafe(|| {
                runtime.block_on(async {
                    tokio::select! {
                        biased;
                        () = interrupt.come() => Ended::Interrupted,
                        ended = drawn.play(harness, arena, seed) => ended,
                    }
                })
            });
            let ended = panic::catch_unwind(round);
            ended.unwrap_or_else(|_| bad(Failure::new("the round panicked")))
        }
    };
    runtime.shutdown_timeout(WIND_DOWN);
    match (ended, panics::take(&thread)) {
        (Ended::Good(done), Some(said)) => Ended::Bad {
            plan: Some(done.plan),
            what: format!("in the background, {said}\n"),
        },
        (Ended::Good(done), None) if panics::elsewhere() > elsewhere => Ended::Bad {
            plan: Some(done.plan),
            what: "a thread of a client panicked; what it said is shown above\n".to_owned(),
        },
        (ended, _) => ended,
    }
}

fn bad(failure: Failure) -> Ended {
    Ended::Bad {
        plan: None,
        what: format!("{failure}\n"),
    }
}

/// What is drawn before there is an arena.
struct Drawn {
    kind: Kind,
    theme: Theme,
    length: Duration,
    case: &'static Case,
}

impl Drawn {
    fn of(seed: u64, Themes(possible): &Themes) -> Self {
        // Not the stream that the plan is drawn from: that begins with the seed itself.
        let mut rng = Rng::with_seed(seed.rotate_left(32));
        let theme = possible[rng.usize(0..possible.len())];
        Self {
            kind: Kind::ALL[rng.usize(0..Kind::ALL.len())],
            theme,
            length: Duration::from_millis(rng.u64(2000..6000)),
            case: arena_of(theme),
        }
    }

    async fn play(self, harness: Arc<dyn Harness>, arena: Arena, seed: u64) -> Ended {
        let capabilities = match arena.capabilities(self.case).await {
            Ok(capabilities) => capabilities,
            Err(error) => return bad(error.into()),
        };
        let recorder = Recorder::new();
        let stand = Stand::new(*self.case, harness, arena, capabilities, recorder);
        // Rounds may share a server.
        let prefix = stand.name(&seed.to_string());
        let mut setting = Setting::of(&stand, prefix, self.length);
        setting.theme = self.theme;
        let plan = Plan::of(seed, self.kind, &setting);
        let ran = run(&stand, &plan).await.map_err(|failure| {
            // The workload did not come to its end; the seed is all there is to say.
            Failure::new(format!("{failure}\nseed {seed}: {plan}\n"))
        });
        match ran.and_then(|ran| ran.judge(&plan)) {
            Ok(tally) => Ended::Good(Box::new(Done {
                plan,
                theme: self.theme,
                tally,
            })),
            Err(failure) => Ended::Bad {
                plan: Some(plan),
                what: failure.to_string(),
            },
        }
    }
}

/// Harnesses give an arena to a case, and a server of its own to one that hurts it.
fn arena_of(theme: Theme) -> &'static Case {
    const SHARED: Case = Case::base("torture", "connections_and_processes_are_broken");
    const SERVER: Case = Case::base("torture", "the_server_is_broken")
        .needs(&[Need::Fault(Fault::Kill), Need::Fault(Fault::Pause)]);
    const LOSS: Case =
        Case::base("torture", "the_server_loses_its_data").needs(&[Need::Fault(Fault::Wipe)]);
    const FAILOVER: Case =
        Case::base("torture", "another_server_leads").needs(&[Need::Fault(Fault::Failover)]);
    const CLOCK: Case = Case::base("torture", "the_servers_clock_is_stepped")
        .needs(&[Need::Fault(Fault::StepClock)]);
    match theme {
        Theme::Calm | Theme::Clients => &SHARED,
        Theme::Server => &SERVER,
        Theme::DataLoss => &LOSS,
        Theme::Failover => &FAILOVER,
        Theme::Clock => &CLOCK,
    }
}
