//! What lockctl and its guardian say to each other: one word and its numbers a line.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use distlock::BootInstant;
use nix::unistd::Pid;

use super::deadline::Deadlines;

/// What the guardian is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Order {
    /// This process group is the command's.
    Guard(Pid),
    /// It may run until then.
    Until(Deadlines),
    /// It is gone: nothing is to be guarded any more.
    Done,
}

/// What the guardian says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Report {
    /// It has left the session and is safe from the terminal's signals.
    Ready,
    /// From now on the group does not outlive lockctl, nor its deadlines.
    Guarding,
    /// The group got SIGTERM, because its time was nearly up.
    Terminated,
    /// The group got SIGKILL, because its time was up.
    Killed,
}

impl Report {
    /// Whether the command was stopped because its time was up.
    pub(crate) fn says_that_time_was_up(self) -> bool {
        matches!(self, Self::Terminated | Self::Killed)
    }
}

/// A line that neither side writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Garbled;

const NEVER: &str = "never";

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Guard(group) => write!(f, "guard {group}"),
            Self::Until(Deadlines { term, kill }) => {
                write!(f, "until {} {}", Point(*term), Point(*kill))
            }
            Self::Done => f.write_str("done"),
        }
    }
}

impl FromStr for Order {
    type Err = Garbled;

    fn from_str(line: &str) -> Result<Self, Garbled> {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["guard", group] => match group.parse() {
                // A group of 0 or 1 would be the guardian's own, or everybody's.
                Ok(group) if group > 1 => Ok(Self::Guard(Pid::from_raw(group))),
                _ => Err(Garbled),
            },
            ["until", term, kill] => Ok(Self::Until(Deadlines {
                term: term.parse::<Point>()?.0,
                kill: kill.parse::<Point>()?.0,
            })),
            ["done"] => Ok(Self::Done),
            _ => Err(Garbled),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ready => "ready",
            Self::Guarding => "guarding",
            Self::Terminated => "terminated",
            Self::Killed => "killed",
        })
    }
}

impl FromStr for Report {
    type Err = Garbled;

    fn from_str(line: &str) -> Result<Self, Garbled> {
        match line {
            "ready" => Ok(Self::Ready),
            "guarding" => Ok(Self::Guarding),
            "terminated" => Ok(Self::Terminated),
            "killed" => Ok(Self::Killed),
            _ => Err(Garbled),
        }
    }
}

/// A point on the machine's clock, in whole nanoseconds since the machine's start.
struct Point(Option<BootInstant>);

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(at) => at.since_origin().as_nanos().fmt(f),
            None => f.write_str(NEVER),
        }
    }
}

impl FromStr for Point {
    type Err = Garbled;

    fn from_str(word: &str) -> Result<Self, Garbled> {
        if word == NEVER {
            return Ok(Self(None));
        }
        let nanos = word.parse().map_err(|_| Garbled)?;
        Ok(Self(Some(BootInstant::from_origin(Duration::from_nanos(
            nanos,
        )))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_and_reports_survive_their_text() {
        let at = |nanos| Some(BootInstant::from_origin(Duration::from_nanos(nanos)));
        let until = |term, kill| Order::Until(Deadlines { term, kill });
        for order in [
            Order::Guard(Pid::from_raw(4_711)),
            until(at(1), at(u64::MAX)),
            until(None, at(7)),
            until(None, None),
            Order::Done,
        ] {
            assert_eq!(order.to_string().parse::<Order>().expect("reads"), order);
        }
        for report in [
            Report::Ready,
            Report::Guarding,
            Report::Terminated,
            Report::Killed,
        ] {
            assert_eq!(report.to_string().parse::<Report>().expect("reads"), report);
        }
    }

    #[test]
    fn nobody_is_told_to_guard_everybody() {
        for line in ["guard 0", "guard 1", "guard -7", "guard", "until 1", ""] {
            assert!(line.parse::<Order>().is_err(), "{line}");
        }
    }
}
