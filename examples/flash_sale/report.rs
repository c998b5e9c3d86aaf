//! What is shown: sentences and a table, or JSON.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::args::Args;
use crate::paused::LateWrite;
use crate::sale::{Sale, Tally};
use crate::warehouse::Count;

pub(crate) const WITHOUT: &str = "\
1. Without a lock, buyers read the same stock, pay, and each of them writes one less than it read.";
pub(crate) const WITH: &str = "\
2. With the lock, a buyer reads, pays and writes before the next one reads.";
pub(crate) const PAUSED: &str = "\
3. A buyer is paused between its last check and its write, for longer than its lock lasts.";

/// Everything that is shown at the end.
#[derive(Debug)]
pub(crate) struct Report {
    backend: &'static str,
    processes: u32,
    pub(crate) rows: Vec<Row>,
    pub(crate) paused: Option<PausedBuyer>,
}

impl Report {
    pub(crate) fn new(backend: &'static str, args: &Args) -> Self {
        Self {
            backend,
            processes: args.processes,
            rows: Vec::new(),
            paused: None,
        }
    }

    pub(crate) fn title(&self) -> String {
        let processes = match self.processes {
            1 => "one process".to_owned(),
            many => format!("{many} processes"),
        };
        format!(
            "Flash sale of one item: buyers in {processes}, locks in {}.",
            self.backend
        )
    }

    /// Whether every locked sale was exact and the stale write refused.
    pub(crate) fn is_good(&self) -> bool {
        self.is_exact() && self.is_fenced()
    }

    fn is_exact(&self) -> bool {
        let mut locked = self.rows.iter().filter(|row| row.sale.locked).peekable();
        locked.peek().is_some() && locked.all(Row::is_exact)
    }

    fn is_fenced(&self) -> bool {
        self.paused
            .as_ref()
            .is_some_and(|paused| paused.late.refused.is_some())
    }

    pub(crate) fn verdict(&self) -> String {
        let sales = if self.is_exact() {
            "Every sale under the lock was exact"
        } else {
            "A sale under the lock was NOT exact"
        };
        let gate = if self.is_fenced() {
            "the stale write was refused"
        } else {
            "the stale write was NOT refused"
        };
        format!("{sales}; {gate}.")
    }

    pub(crate) fn table(&self) -> String {
        let mut lines = vec![
            format!("{:>42}{:>39}", "", "wait for the lock, ms"),
            format!(
                "{:>4} {:>6} {:>6} {:>6} {:>8} {:>7} {:>9} {:>9} {:>9} {:>9} {:>11}",
                "lock",
                "buyers",
                "stock",
                "sold",
                "oversold",
                "errors",
                "mean",
                "p50",
                "p99",
                "max",
                "sections/s"
            ),
        ];
        lines.extend(self.rows.iter().map(Row::line));
        lines.push(String::new());
        lines.join("\n")
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "backend": self.backend,
            "processes": self.processes,
            "rows": self.rows.iter().map(Row::json).collect::<Vec<_>>(),
            "paused_buyer": self.paused.as_ref().map(PausedBuyer::json),
            "exact": self.is_exact(),
            "stale_write_refused": self.is_fenced(),
        })
    }
}

/// One sale.
#[derive(Debug)]
pub(crate) struct Row {
    sale: Sale,
    count: Count,
    sections: u32,
    errors: u32,
    first_error: Option<String>,
    took: Duration,
    waits: Option<Waits>,
}

impl Row {
    pub(crate) fn new(sale: Sale, tally: &Tally, count: Count, took: Duration) -> Self {
        Self {
            sale,
            count,
            sections: tally.sections,
            errors: tally.errors,
            first_error: tally.first_error.clone(),
            took,
            waits: Waits::of(&tally.waits_us),
        }
    }

    /// As many as there were, or as came, were sold; and as many are left as were not.
    fn is_exact(&self) -> bool {
        let Count { stock, left, sold } = self.count;
        sold == stock.min(self.sale.buyers) && left == stock - sold
    }

    fn oversold(&self) -> u32 {
        self.count.sold.saturating_sub(self.count.stock)
    }

    fn error_rate(&self) -> f64 {
        f64::from(self.errors) / f64::from(self.sale.buyers)
    }

    fn sections_per_second(&self) -> f64 {
        f64::from(self.sections) / self.took.as_secs_f64().max(f64::EPSILON)
    }

    pub(crate) fn sentence(&self) -> String {
        let Count { stock, left, sold } = self.count;
        let outcome = match self.oversold() {
            0 if self.is_exact() => "exact".to_owned(),
            0 => "NOT exact".to_owned(),
            more => format!("{more} more than there were"),
        };
        let errors = match &self.first_error {
            None => String::new(),
            Some(first) => format!(" {} failed, the first with: {first}.", self.errors),
        };
        format!(
            "   {} buyers, {stock} in stock: {sold} sold, {left} left on paper: {outcome}.{errors}",
            self.sale.buyers
        )
    }

    fn line(&self) -> String {
        let ms = |pick: fn(&Waits) -> f64| {
            self.waits
                .as_ref()
                .map_or_else(|| "-".to_owned(), |waits| format!("{:.2}", pick(waits)))
        };
        format!(
            "{:>4} {:>6} {:>6} {:>6} {:>8} {:>7} {:>9} {:>9} {:>9} {:>9} {:>11.0}",
            if self.sale.locked { "yes" } else { "no" },
            self.sale.buyers,
            self.count.stock,
            self.count.sold,
            self.oversold(),
            format!("{:.1} %", 100.0 * self.error_rate()),
            ms(|waits| waits.mean),
            ms(|waits| waits.p50),
            ms(|waits| waits.p99),
            ms(|waits| waits.max),
            self.sections_per_second(),
        )
    }

    fn json(&self) -> Value {
        json!({
            "locked": self.sale.locked,
            "buyers": self.sale.buyers,
            "stock": self.count.stock,
            "sold": self.count.sold,
            "left": self.count.left,
            "oversold": self.oversold(),
            "exact": self.is_exact(),
            "error_rate": self.error_rate(),
            "first_error": self.first_error,
            "sections_per_second": self.sections_per_second(),
            "wait_ms": self.waits.as_ref().map(|waits| json!({
                "mean": waits.mean,
                "p50": waits.p50,
                "p99": waits.p99,
                "max": waits.max,
            })),
        })
    }
}

/// How long buyers waited for the lock, in milliseconds.
#[derive(Debug)]
struct Waits {
    mean: f64,
    p50: f64,
    p99: f64,
    max: f64,
}

impl Waits {
    /// `None` where nobody got a lock.
    fn of(waits_us: &[u64]) -> Option<Self> {
        let mut all = Histogram::<u64>::new(3).ok()?;
        for &wait in waits_us {
            all.record(wait).ok()?;
        }
        let ms = |micros| Duration::from_micros(micros).as_secs_f64() * 1e3;
        (!all.is_empty()).then(|| Self {
            mean: all.mean() / 1e3,
            p50: ms(all.value_at_quantile(0.5)),
            p99: ms(all.value_at_quantile(0.99)),
            max: ms(all.max()),
        })
    }
}

/// The third act.
#[derive(Debug)]
pub(crate) struct PausedBuyer {
    late: LateWrite,
    next_token: u64,
}

impl PausedBuyer {
    pub(crate) fn new(late: LateWrite, next_token: u64) -> Self {
        Self { late, next_token }
    }

    pub(crate) fn sentence(&self) -> String {
        let LateWrite {
            token,
            refused,
            noticed,
        } = &self.late;
        let next = self.next_token;
        let gate = match refused {
            Some(_) => "the gate refused it",
            None => "it was let through, over the other buyer's",
        };
        let guard = if *noticed {
            "knows that the lock is lost"
        } else {
            "believes that it still has the lock"
        };
        format!(
            "   The next buyer bought with token {next}. The first one woke up and wrote with token \
             {token}: {gate}. Its guard now {guard}."
        )
    }

    fn json(&self) -> Value {
        json!({
            "stale_token": self.late.token,
            "next_token": self.next_token,
            "refused": self.late.refused.is_some(),
            "reason": self.late.refused,
            "guard_knows_it_is_lost": self.late.noticed,
        })
    }
}
