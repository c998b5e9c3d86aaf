//! What is going to be done, all of it decided beforehand.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;

use super::draft::{Draft, Setting};
use super::faults::{self, FaultStep};
use super::kind::Kind;
use super::script::{ClientPlan, Place, Work};
use super::theme::Theme;
use crate::resource::Fencing;

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

impl Plan {
    /// The plan that `seed` gives.
    #[must_use]
    pub fn of(seed: u64, kind: Kind, setting: &Setting) -> Self {
        let mut rng = Rng::with_seed(seed);
        // A machine that is busy does not keep up with the shortest lease all the time: it is used
        // only where nobody minds.
        let short = setting.ttl * rng.u32(1..=3);
        let ttl = match setting.theme == Theme::Calm && !kind.waits_for_ends() {
            // What is left behind is not hidden by the end of its lease.
            true => setting.long_ttl,
            false if kind == Kind::LongHolds => setting.ttl * 3,
            false => short,
        };
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

    /// The longest lease that somebody may have left behind: who was killed, or a lease that nobody renews.
    pub(super) fn longest_orphan(&self) -> Duration {
        let scripts = self.clients.iter().flat_map(|client| &client.scripts);
        let steps = scripts.flat_map(|script| &script.steps);
        let left = steps.filter(|step| !step.kept || !self.faults.is_empty());
        left.map(|step| step.ttl).max().unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::case::Fault;

    fn setting(theme: Theme) -> Setting {
        Setting {
            prefix: "t".to_owned(),
            length: Duration::from_secs(3),
            ttl: Duration::from_millis(300),
            long_ttl: Duration::from_secs(60),
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
