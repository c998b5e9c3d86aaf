//! What happened, in words; kept only where somebody is going to read it.

use std::fmt;
use std::time::Duration;

pub(super) struct History {
    lines: Option<Vec<String>>,
}

impl History {
    pub(super) fn new(kept: bool) -> Self {
        Self {
            lines: kept.then(Vec::new),
        }
    }

    pub(super) fn is_kept(&self) -> bool {
        self.lines.is_some()
    }

    pub(super) fn note(&mut self, at: Duration, who: &str, what: fmt::Arguments<'_>) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>11.6} {who:<6} {what}", at.as_secs_f64()));
        }
    }

    pub(super) fn take(&mut self) -> Vec<String> {
        self.lines.take().unwrap_or_default()
    }
}
