//! Until when a session is certainly alive: pure state, no I/O, no clock of its own.
//!
//! An answer from a server is not yet validity. A follower that has lost its leader, and does not
//! know it yet, goes on answering reads and pings while the leader lets the session expire. What the
//! leader knows of a session is what the follower tells it once a tick. So a heartbeat counts, from
//! the moment before it was sent, only when another one that was sent *on the same connection* at
//! least a tick after its answer has been answered through the leader, which is what `sync` does: by
//! then the follower has told the leader of the first. A tick after it was sent is not enough: what
//! was held up on the way may reach the follower together.

use std::collections::VecDeque;
use std::time::Duration;

use lock_core::BootInstant;

/// The heartbeats of one session.
#[derive(Debug)]
pub(crate) struct Heartbeats {
    tick: Duration,
    /// Answered on this connection, not confirmed yet; oldest first.
    answered: VecDeque<Answered>,
    confirmed: BootInstant,
}

#[derive(Debug)]
struct Answered {
    sent: BootInstant,
    heard: BootInstant,
}

impl Heartbeats {
    /// Those of a session that was asked for at `opened`. Opening it was agreed on by a quorum, so
    /// that counts by itself.
    pub(crate) fn new(opened: BootInstant, tick: Duration) -> Self {
        Self {
            tick,
            answered: VecDeque::new(),
            confirmed: opened,
        }
    }

    /// The answer to the heartbeat that was sent at `sent` was heard at `heard`; `true` when an older
    /// one counts now.
    pub(crate) fn answered(&mut self, sent: BootInstant, heard: BootInstant) -> bool {
        let before = self.confirmed;
        while let Some(oldest) = self.answered.front() {
            if oldest.heard + self.tick > sent {
                break;
            }
            self.confirmed = self.confirmed.max(oldest.sent);
            self.answered.pop_front();
        }
        // Answers come in the order of the requests; one out of order would only be of less use.
        self.answered.push_back(Answered { sent, heard });
        self.confirmed > before
    }

    /// When to send the heartbeat that is planned for `planned`: a moment later, where it counts an older
    /// one then.
    pub(crate) fn due(&self, planned: BootInstant) -> BootInstant {
        let counts = self.answered.front().map(|oldest| oldest.heard + self.tick);
        counts
            .filter(|counts| (planned..planned + self.tick / 4).contains(counts))
            .unwrap_or(planned)
    }

    /// The connection has gone: what it answered is not confirmed by another one.
    pub(crate) fn disconnected(&mut self) {
        self.answered.clear();
    }

    /// When the newest heartbeat that counts was sent.
    pub(crate) fn confirmed(&self) -> BootInstant {
        self.confirmed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> BootInstant {
        BootInstant::from_origin(Duration::from_millis(millis))
    }

    fn beats() -> Heartbeats {
        Heartbeats::new(at(1000), Duration::from_millis(100))
    }

    #[test]
    fn heartbeat_counts_when_one_a_tick_after_its_answer_is_answered() {
        let mut beats = beats();
        assert!(!beats.answered(at(1050), at(1060)));
        assert!(!beats.answered(at(1159), at(1160)));
        assert_eq!(beats.confirmed(), at(1000));
        assert!(beats.answered(at(1160), at(1170)));
        assert_eq!(beats.confirmed(), at(1050));
        assert!(beats.answered(at(1300), at(1310)));
        assert_eq!(beats.confirmed(), at(1160));
    }

    #[test]
    fn heartbeats_that_are_answered_together_confirm_nothing_of_each_other() {
        let mut beats = beats();
        for sent in [1050, 1150, 1250, 1350] {
            assert!(!beats.answered(at(sent), at(1400)));
        }
        assert_eq!(beats.confirmed(), at(1000));
        assert!(beats.answered(at(1500), at(1510)));
        assert_eq!(beats.confirmed(), at(1350));
    }

    #[test]
    fn heartbeat_waits_a_moment_where_it_counts_another_one_then() {
        let mut beats = beats();
        assert_eq!(beats.due(at(1150)), at(1150));
        beats.answered(at(1050), at(1060));
        assert_eq!(beats.due(at(1150)), at(1160));
        assert_eq!(beats.due(at(1170)), at(1170));
        assert_eq!(beats.due(at(1100)), at(1100));
    }

    #[test]
    fn another_connection_confirms_nothing_of_the_one_before() {
        let mut beats = beats();
        beats.answered(at(1050), at(1050));
        beats.disconnected();
        assert!(!beats.answered(at(1500), at(1500)));
        assert_eq!(beats.confirmed(), at(1000));
        assert!(beats.answered(at(1600), at(1600)));
        assert_eq!(beats.confirmed(), at(1500));
    }

    #[test]
    fn unanswered_heartbeats_count_for_nothing() {
        let mut beats = beats();
        beats.answered(at(1050), at(1050));
        // Those of 1100 to 1900 were lost, then the next is answered.
        beats.answered(at(2000), at(2000));
        assert_eq!(beats.confirmed(), at(1050));
    }
}
