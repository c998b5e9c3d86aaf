//! What is shown of a level: a row, a bar, a line of JSON.

use std::time::Duration;

use serde_json::{Value, json};

use super::plan::{Keys, shares};
use super::tally::{Tally, Waits};
use crate::output;

/// How long the longest bar is, in characters.
const BAR: usize = 40;

/// One level of the load.
#[derive(Debug)]
pub(crate) struct Level {
    pub(crate) tasks: u32,
    pub(crate) processes: u32,
    pub(crate) keys: Keys,
    pub(crate) took: Duration,
    pub(crate) tally: Tally,
    pub(crate) waits: Waits,
    /// What the counters came to.
    pub(crate) counted: u64,
    /// What the server says that its clients have sent meanwhile.
    pub(crate) commands: Option<u64>,
}

impl Level {
    /// Whether no increment was lost, and there was one.
    pub(crate) fn is_exact(&self) -> bool {
        self.counted == self.tally.sections && self.counted > 0
    }

    fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.took.as_secs_f64().max(f64::EPSILON)
    }

    fn commands_per_section(&self) -> Option<f64> {
        let sections = self.tally.sections.max(1) as f64;
        self.commands.map(|commands| commands as f64 / sections)
    }

    /// The most sections of a process over the least; of a task where there is one process.
    /// `None` where somebody had none.
    fn fairness(&self) -> Option<f64> {
        let by_task = &self.tally.by_task;
        let by_process: Vec<u64> = match self.processes {
            1 => by_task.clone(),
            many => shares(self.tasks, many)
                .map(|(first, count)| {
                    let tasks = by_task.iter().skip(first as usize).take(count as usize);
                    tasks.sum()
                })
                .collect(),
        };
        let (most, least) = (by_process.iter().max()?, by_process.iter().min()?);
        (*least > 0).then(|| *most as f64 / *least as f64)
    }

    pub(crate) fn json(&self, backend: &str) -> Value {
        json!({
            "backend": backend,
            "tasks": self.tasks,
            "processes": self.processes,
            "keys": self.keys.as_str(),
            "seconds": round(self.took.as_secs_f64()),
            "sections": self.tally.sections,
            "sections_per_second": round(self.per_second(self.tally.sections)),
            "hand_offs_per_second": round(self.per_second(self.tally.hand_offs)),
            "wait_ms": {
                "mean": round(self.waits.mean_ms()),
                "p50": round(self.waits.quantile_ms(0.5)),
                "p99": round(self.waits.quantile_ms(0.99)),
                "max": round(self.waits.max_ms()),
            },
            "errors": self.tally.errors,
            "first_error": self.tally.first_error,
            "fairness": self.fairness().map(round),
            "commands_per_section": self.commands_per_section().map(round),
            "counted": self.counted,
            "exact": self.is_exact(),
        })
    }

    fn row(&self) -> [String; 12] {
        let optional = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), two);
        [
            self.tasks.to_string(),
            whole(self.per_second(self.tally.sections)),
            whole(self.per_second(self.tally.hand_offs)),
            two(self.waits.mean_ms()),
            two(self.waits.quantile_ms(0.5)),
            two(self.waits.quantile_ms(0.99)),
            two(self.waits.max_ms()),
            self.tally.errors.to_string(),
            optional(self.fairness()),
            optional(self.commands_per_section()),
            self.counted.to_string(),
            match self.is_exact() {
                true => "yes".to_owned(),
                false => "NO".to_owned(),
            },
        ]
    }
}

/// The levels under each other, a bar for each, and a verdict.
pub(crate) fn text(levels: &[Level]) -> String {
    let heading = [
        "TASKS",
        "SECT/S",
        "HANDS/S",
        "WAIT MEAN",
        "P50",
        "P99",
        "MAX ms",
        "ERRORS",
        "MAX/MIN",
        "CMD/SECT",
        "COUNTED",
        "EXACT",
    ]
    .map(str::to_owned);
    let rows: Vec<_> = std::iter::once(heading)
        .chain(levels.iter().map(Level::row))
        .collect();
    let mut text = output::table(&rows);
    text.push('\n');
    text.push_str(&chart(levels));
    for level in levels {
        if let Some(error) = &level.tally.first_error {
            text.push_str(&format!(
                "\n{} tasks: {} failed, the first with: {error}\n",
                level.tasks, level.tally.errors
            ));
        }
    }
    text.push_str(match levels.iter().all(Level::is_exact) {
        true => "\nEvery counter is exact: the lock excluded.\n",
        false => "\nA counter is NOT exact: the lock did not exclude, or nobody got it.\n",
    });
    text
}

/// Sections per second, the best level as long as can be.
fn chart(levels: &[Level]) -> String {
    let rate = |level: &Level| level.per_second(level.tally.sections);
    let best = levels.iter().map(rate).fold(f64::EPSILON, f64::max);
    let mut text = String::from("sections/s\n");
    for level in levels {
        // Eighths of a character, so that small differences show.
        let eighths =
            (0..BAR * 8).filter(|&eighth| (eighth as f64) < rate(level) / best * (BAR * 8) as f64);
        let eighths = eighths.count();
        let rest = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8];
        let bar = format!("{}{rest}", "█".repeat(eighths / 8));
        text.push_str(&format!(
            "{:>6} {bar} {}\n",
            level.tasks,
            whole(rate(level))
        ));
    }
    text
}

fn whole(value: f64) -> String {
    format!("{value:.0}")
}

fn two(value: f64) -> String {
    format!("{value:.2}")
}

/// Three digits behind the point are more than is known.
fn round(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(processes: u32, by_task: &[u64], counted: u64) -> Level {
        Level {
            tasks: u32::try_from(by_task.len()).expect("few"),
            processes,
            keys: Keys::One,
            took: Duration::from_secs(2),
            tally: Tally {
                sections: by_task.iter().sum(),
                by_task: by_task.to_vec(),
                ..Tally::default()
            },
            waits: Waits::new(),
            counted,
            commands: Some(200),
        }
    }

    #[test]
    fn lost_increment_is_seen() {
        assert!(level(1, &[60, 40], 100).is_exact());
        assert!(!level(1, &[60, 40], 99).is_exact());
        assert!(!level(1, &[0], 0).is_exact());
        assert!(text(&[level(1, &[60, 40], 99)]).contains("NOT exact"));
    }

    #[test]
    fn fairness_is_by_process_where_there_are_several() {
        assert_eq!(level(1, &[60, 40], 100).fairness(), Some(1.5));
        assert_eq!(level(2, &[10, 20, 5, 5], 40).fairness(), Some(3.0));
        assert_eq!(level(2, &[10, 0], 10).fairness(), None);
    }

    #[test]
    fn json_has_what_is_promised() {
        let value = level(2, &[60, 40], 100).json("toy");
        assert_eq!(value["sections_per_second"], 50.0);
        assert_eq!(value["commands_per_section"], 2.0);
        assert_eq!(value["exact"], true);
    }
}
