//! A plan in the making: what there is to draw from, and drawing.

use std::ops::Range;
use std::time::Duration;

use fastrand::Rng;
use lock_core::Lease;

use super::script::{Ask, ClientPlan, Leave, Place, Script, Step, Work};
use super::theme::{KNOWN, Theme};
use crate::case::Fault;
use crate::resource::Fencing;
use crate::stand::{LONG, Stand};

/// What a plan depends on besides its seed: what there is to be used, and to be broken.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// What all names begin with.
    pub prefix: String,
    /// For how long clients keep asking.
    pub length: Duration,
    /// The shortest lease of a hold that is renewed.
    pub ttl: Duration,
    /// A lease that nobody lives to see the end of, or the longest there is.
    pub long_ttl: Duration,
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

impl Setting {
    /// What `stand` offers, with nothing broken and a fence.
    pub(crate) fn of(stand: &Stand, prefix: String, length: Duration) -> Self {
        let capabilities = stand.capabilities();
        let ttl = stand.ttl();
        let possible = |ttl: Duration, lease| {
            let range = capabilities.ttl_of(lease);
            range.map(|range| ttl.clamp(range.min, range.max))
        };
        Self {
            prefix,
            length,
            ttl: possible(ttl, Lease::Kept).unwrap_or(ttl),
            long_ttl: possible(LONG, Lease::Kept).unwrap_or(LONG),
            fixed_ttl: possible(ttl, Lease::Fixed),
            processes: stand.crosses_processes(),
            proxied: stand.is_proxied(),
            theme: Theme::Calm,
            faults: KNOWN
                .into_iter()
                .filter(|fault| stand.supports(*fault))
                .collect(),
            breaks: capabilities.break_hold,
            fencing: Fencing::Checked,
        }
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
