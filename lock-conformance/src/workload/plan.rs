//! What is going to be done, all of it decided beforehand.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use fastrand::Rng;
use lock_core::Lease;
use serde::{Deserialize, Serialize};

use super::faults::{self, FaultStep, Theme};
use super::kind::Kind;
use crate::case::Fault;
use crate::resource::Fencing;
use crate::stand::Stand;

/// What a plan depends on besides its seed: what there is to be used, and to be broken.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// What all names begin with.
    pub prefix: String,
    /// For how long clients keep asking.
    pub length: Duration,
    /// The shortest lease of a hold that is renewed.
    pub ttl: Duration,
    /// The lease of a hold that nobody renews; `None` where a live process's hold never ends.
    pub fixed_ttl: Option<Duration>,
    /// Whether there are worker processes.
    pub processes: bool,
    /// Whether something can stand in the middle of connections.
    pub proxied: bool,
    /// What is broken meanwhile.
    pub theme: Theme,
    /// What can be broken.
    pub faults: Vec<Fault>,
    /// Whether holds can be broken.
    pub breaks: bool,
    /// Whether the resource looks at tokens.
    pub fencing: Fencing,
}

/// Everything that a run leaves to chance.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What it was made from.
    pub seed: u64,
    /// How the locks are loaded.
    pub kind: Kind,
    /// For how long clients keep asking.
    pub length: Duration,
    /// The lease of renewed holds.
    pub ttl: Duration,
    /// The locks.
    pub names: Vec<String>,
    /// Who uses them.
    pub clients: Vec<ClientPlan>,
    /// What is broken, in the order of time.
    pub faults: Vec<FaultStep>,
    /// Whether the resource looks at tokens.
    pub fencing: Fencing,
}

/// One client, with a connection of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientPlan {
    /// What it is called in the history, and to operators.
    pub who: String,
    /// Where it runs.
    pub place: Place,
    /// What its tasks do, side by side.
    pub scripts: Vec<Script>,
}

/// Where a client runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// In the suite's process, on a connection of its own.
    Here,
    /// In the suite's process, through what stands in the middle of connections.
    Proxied,
    /// In a worker process.
    Worker,
}

/// What one task does, again and again until the time is up.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Script {
    /// What it is called in the history.
    pub who: String,
    /// One acquisition after the other.
    pub steps: Vec<Step>,
}

/// One acquisition.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Step {
    /// The pause before it.
    pub think: Duration,
    /// The lock.
    pub name: String,
    /// The lease.
    pub ttl: Duration,
    /// Whether the lease is renewed.
    pub kept: bool,
    /// How the lock is asked for.
    pub ask: Ask,
    /// What is done while it is held.
    pub work: Work,
    /// How it is given up.
    pub leave: Leave,
}

/// How a lock is asked for.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Ask {
    /// Once.
    Try,
    /// Waiting for so long at most.
    Within(Duration),
    /// Waiting for as long as it takes.
    Wait,
    /// Waiting, and dropping the future after so long.
    Cancel(Duration),
}

/// What is done while a lock is held.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Work {
    /// Holding it for so long, and asking again and again whether it is still held.
    Hold(Duration),
    /// Adding one to the counter behind the lock: read, think, write. Like a program that does not
    /// know that it was paused, it does not ask before it writes.
    Increment(Duration),
}

/// How a lock is given up.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Leave {
    /// Released, and what became of it is awaited.
    Release,
    /// The guard is dropped.
    Drop,
}

impl Setting {
    /// What `stand` offers, with nothing broken and a fence.
    pub(crate) fn of(stand: &Stand, prefix: String, length: Duration) -> Self {
        let capabilities = stand.capabilities();
        let ttl = stand.ttl();
        let least = |lease| {
            let range = capabilities.ttl_of(lease);
            range.map(|range| ttl.clamp(range.min, range.max))
        };
        Self {
            prefix,
            length,
            ttl: least(Lease::Kept).unwrap_or(ttl),
            fixed_ttl: least(Lease::Fixed),
            processes: stand.crosses_processes(),
            proxied: stand.is_proxied(),
            theme: Theme::Calm,
            faults: faults::KNOWN
                .into_iter()
                .filter(|fault| stand.supports(*fault))
                .collect(),
            breaks: capabilities.break_hold,
            fencing: Fencing::Checked,
        }
    }
}

impl Plan {
    /// The plan that `seed` gives.
    #[must_use]
    pub fn of(seed: u64, kind: Kind, setting: &Setting) -> Self {
        let mut rng = Rng::with_seed(seed);
        // A machine that is busy does not keep up with the shortest lease all the time: it is used
        // only where nobody minds.
        let ttl = setting.ttl * rng.u32(1..=3);
        let mut draft = Draft {
            setting,
            ttl,
            rng: &mut rng,
        };
        let (names, clients) = kind.clients(&mut draft);
        let faults = faults::schedule(&mut draft, kind, names.len(), &clients);
        Self {
            seed,
            kind,
            length: setting.length,
            ttl,
            names,
            clients,
            faults,
            fencing: setting.fencing,
        }
    }

    /// The longest that a task stays with one acquisition by its own will.
    pub(super) fn longest_step(&self) -> Duration {
        let scripts = self.clients.iter().flat_map(|client| &client.scripts);
        let works = scripts.flat_map(|script| &script.steps).map(|step| {
            let (Work::Hold(time) | Work::Increment(time)) = step.work;
            time + step.think
        });
        works.max().unwrap_or_default()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tasks: usize = self.clients.iter().map(|client| client.scripts.len()).sum();
        let workers = |client: &&ClientPlan| client.place == Place::Worker;
        write!(
            f,
            "{} with {} tasks of {} clients ({} of them processes) on {} locks for {:?}, leases of {:?}",
            self.kind,
            tasks,
            self.clients.len(),
            self.clients.iter().filter(workers).count(),
            self.names.len(),
            self.length,
            self.ttl,
        )?;
        if self.fencing == Fencing::Ignored {
            f.write_str(", without a fence")?;
        }
        for fault in &self.faults {
            write!(f, "\n  {fault}")?;
        }
        Ok(())
    }
}

/// A plan in the making: what a kind of workload draws its clients from.
pub(super) struct Draft<'a> {
    pub(super) setting: &'a Setting,
    pub(super) ttl: Duration,
    pub(super) rng: &'a mut Rng,
}

/// How many acquisitions a task has in its script before it begins again.
const STEPS: usize = 40;

impl Draft<'_> {
    pub(super) fn names(&mut self, count: usize) -> Vec<String> {
        let prefix = &self.setting.prefix;
        (0..count).map(|n| format!("{prefix}/{n}")).collect()
    }

    /// A time in milliseconds.
    pub(super) fn ms(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.rng.u64(range))
    }

    /// `whole` times a number between the two, in hundredths.
    pub(super) fn part(&mut self, whole: Duration, hundredths: Range<u32>) -> Duration {
        whole * self.rng.u32(hundredths) / 100
    }

    pub(super) fn chance(&mut self, percent: u32) -> bool {
        self.rng.u32(0..100) < percent
    }

    pub(super) fn one_of<'n>(&mut self, names: &'n [String]) -> &'n str {
        &names[self.rng.usize(0..names.len())]
    }

    /// So many clients with so many tasks each, here and, where there are, in worker processes; `step`
    /// draws their acquisitions.
    pub(super) fn clients(
        &mut self,
        clients: usize,
        tasks: usize,
        mut step: impl FnMut(&mut Self) -> Step,
    ) -> Vec<ClientPlan> {
        let workers = match self.setting.processes {
            true => self.rng.usize(1..=clients.div_ceil(2)),
            false => 0,
        };
        (0..clients)
            .map(|number| {
                let (who, place) = match number.checked_sub(workers) {
                    None => (format!("worker {number}"), Place::Worker),
                    Some(number) => {
                        let place = match number % 2 {
                            0 if self.setting.proxied => Place::Proxied,
                            _ => Place::Here,
                        };
                        (format!("client {number}"), place)
                    }
                };
                let scripts = (0..tasks)
                    .map(|task| Script {
                        who: match tasks {
                            1 => who.clone(),
                            _ => format!("{who}.{task}"),
                        },
                        steps: (0..STEPS).map(|_| step(self)).collect(),
                    })
                    .collect();
                ClientPlan {
                    who,
                    place,
                    scripts,
                }
            })
            .collect()
    }

    /// A short section with a kept lease, to be changed by whoever draws it.
    pub(super) fn section(&mut self, name: &str) -> Step {
        Step {
            think: self.ms(0..15),
            name: name.to_owned(),
            ttl: self.ttl,
            kept: true,
            ask: Ask::Wait,
            work: Work::Hold(self.ms(0..10)),
            leave: match self.chance(10) {
                true => Leave::Drop,
                false => Leave::Release,
            },
        }
    }

    /// Lets the lease of the step end while its holder still thinks, if there are such leases.
    pub(super) fn oversleep(&mut self, mut step: Step) -> Step {
        if let Some(ttl) = self.setting.fixed_ttl {
            step.ttl = ttl;
            step.kept = false;
            step.work = Work::Increment(ttl + self.part(ttl, 40..120));
        }
        step
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn setting(theme: Theme) -> Setting {
        Setting {
            prefix: "t".to_owned(),
            length: Duration::from_secs(3),
            ttl: Duration::from_millis(300),
            fixed_ttl: Some(Duration::from_millis(300)),
            processes: true,
            proxied: true,
            theme,
            faults: vec![
                Fault::Cut,
                Fault::BlackHole,
                Fault::Kill,
                Fault::Pause,
                Fault::Wipe,
            ],
            breaks: true,
            fencing: Fencing::Checked,
        }
    }

    #[test]
    fn same_seed_gives_the_same_plan_and_another_another() {
        for kind in Kind::ALL {
            for theme in Theme::ALL {
                let setting = setting(theme);
                let plan = Plan::of(7, kind, &setting);
                assert_eq!(plan, Plan::of(7, kind, &setting));
                assert_ne!(plan.clients, Plan::of(8, kind, &setting).clients);
                assert_eq!(
                    format!("{plan:?}"),
                    format!("{:?}", Plan::of(7, kind, &setting))
                );
            }
        }
    }

    #[test]
    fn every_kind_uses_every_lock_and_names_its_tasks_apart() {
        for kind in Kind::ALL {
            let plan = Plan::of(3, kind, &setting(Theme::Calm));
            let scripts: Vec<_> = plan.clients.iter().flat_map(|c| &c.scripts).collect();
            let who: BTreeSet<_> = scripts.iter().map(|script| &script.who).collect();
            assert_eq!(who.len(), scripts.len(), "{kind}");
            let steps = scripts.iter().flat_map(|script| &script.steps);
            let used: BTreeSet<_> = steps.map(|step| &step.name).collect();
            assert_eq!(used, plan.names.iter().collect(), "{kind}");
        }
    }

    #[test]
    fn leases_that_nobody_renews_are_drawn_only_where_there_are_such() {
        let mut setting = setting(Theme::Calm);
        setting.fixed_ttl = None;
        for kind in Kind::ALL {
            let plan = Plan::of(3, kind, &setting);
            let mut steps = plan
                .clients
                .iter()
                .flat_map(|c| &c.scripts)
                .flat_map(|s| &s.steps);
            assert!(steps.all(|step| step.kept), "{kind}");
        }
    }
}
