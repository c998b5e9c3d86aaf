//! Holds, put together from what was seen of them.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::event::{Event, Left, Loss, What};
use super::trouble::Troubles;

/// One grant, and what became of it.
#[derive(Debug)]
pub(super) struct Hold<'a> {
    pub(super) token: u64,
    pub(super) asked: Duration,
    pub(super) granted: Duration,
    pub(super) event: &'a Event,
    /// Its lease, and whether it is renewed.
    pub(super) lease: Option<(Duration, bool)>,
    /// When its holder last had it confirmed that it may act: its grant, or a check that said so.
    pub(super) confirmed: Duration,
    /// The latest end of its validity that its holder was shown.
    pub(super) shown: Option<Duration>,
    pub(super) releasing: Option<Duration>,
    pub(super) left: Option<(&'a Left, &'a Event)>,
    pub(super) lost: Option<(Loss, &'a Event)>,
    /// The first check that said that it may not act any more, if it had not been told of a loss by then.
    pub(super) doubted: Option<&'a Event>,
    /// From when on a declared exception may have taken it: a loss of data, a break.
    pub(super) undone: Option<Duration>,
}

impl Hold<'_> {
    /// Until when its holder was right to believe in it: to the beginning of a release that was
    /// executed, or to its last confirmation. What comes later, of a hold that was lost, is judged by
    /// P3 and P9.
    pub(super) fn believed_until(&self) -> Duration {
        let released = matches!(self.left, Some((Left::Clean | Left::Unknown, _)));
        let end = self.releasing.filter(|_| released);
        let end = end.map_or(self.confirmed, |end| end.max(self.confirmed));
        self.undone.map_or(end, |undone| end.min(undone))
    }

    /// Whether a declared exception had taken it by then.
    pub(super) fn undone_by(&self, at: Duration) -> bool {
        self.undone.is_some_and(|undone| undone <= at)
    }

    /// When somebody gave it up or was told of its end, whichever came first.
    pub(super) fn ended(&self) -> Option<Duration> {
        let lost = self.lost.map(|(_, event)| event.at);
        match (self.releasing, lost) {
            (Some(releasing), Some(lost)) => Some(releasing.min(lost)),
            (one, other) => one.or(other),
        }
    }
}

/// The holds of one lock, by token.
#[derive(Debug, Default)]
pub(super) struct Holds<'a> {
    holds: Vec<Hold<'a>>,
    /// For each hold, the one among it and all with larger tokens whose grant completed first.
    first_from: Vec<usize>,
}

impl<'a> Holds<'a> {
    fn new(mut holds: Vec<Hold<'a>>) -> Self {
        holds.sort_by_key(|hold| hold.token);
        let mut first_from: Vec<usize> = (0..holds.len()).collect();
        for at in (1..holds.len()).rev() {
            let next = first_from[at];
            if holds[next].granted < holds[at - 1].granted {
                first_from[at - 1] = next;
            }
        }
        Self { holds, first_from }
    }

    /// In the order of their tokens.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Hold<'a>> {
        self.holds.iter()
    }

    pub(super) fn of(&self, token: u64) -> Option<&Hold<'a>> {
        let at = self.holds.binary_search_by_key(&token, |hold| hold.token);
        at.ok().map(|at| &self.holds[at])
    }

    /// Among the holds with a larger token, the one whose grant completed first.
    pub(super) fn first_newer(&self, token: u64) -> Option<&Hold<'a>> {
        let at = self.holds.partition_point(|hold| hold.token <= token);
        let first = self.first_from.get(at)?;
        Some(&self.holds[*first])
    }
}

/// The holds of every lock that was granted.
pub(super) fn holds_by_name<'a>(
    events: &'a [Event],
    troubles: &Troubles<'a>,
) -> BTreeMap<&'a str, Holds<'a>> {
    let mut holds: BTreeMap<&str, Vec<Hold<'_>>> = BTreeMap::new();
    let mut places: HashMap<(&str, u64), usize> = HashMap::new();
    for event in events {
        if let What::Granted { asked, token } = event.what {
            let of_name = holds.entry(&event.name).or_default();
            places.entry((&event.name, token)).or_insert(of_name.len());
            of_name.push(Hold {
                token,
                asked,
                granted: event.at,
                event,
                lease: None,
                confirmed: event.at,
                shown: None,
                releasing: None,
                left: None,
                lost: None,
                doubted: None,
                undone: troubles.undone(&event.name, token, asked),
            });
        }
    }
    for event in events {
        let token = match &event.what {
            What::Leased { token, .. }
            | What::Shown { token, .. }
            | What::Checked { token, .. }
            | What::Releasing { token }
            | What::Released { token, .. }
            | What::Lost { token, .. } => *token,
            _ => continue,
        };
        let place = places.get(&(event.name.as_str(), token));
        if let Some((place, holds)) = place.zip(holds.get_mut(event.name.as_str())) {
            take_in(&mut holds[*place], event);
        }
    }
    let sorted = |(name, holds)| (name, Holds::new(holds));
    holds.into_iter().map(sorted).collect()
}

fn take_in<'a>(hold: &mut Hold<'a>, event: &'a Event) {
    match &event.what {
        What::Leased { ttl, kept, .. } => hold.lease = Some((*ttl, *kept)),
        What::Shown { until, .. } => hold.shown = hold.shown.max(Some(*until)),
        What::Checked {
            began, valid: true, ..
        } => hold.confirmed = hold.confirmed.max(*began),
        What::Checked { valid: false, .. } if hold.lost.is_none() => {
            hold.doubted = hold.doubted.or(Some(event));
        }
        What::Releasing { .. } => hold.releasing = hold.releasing.or(Some(event.at)),
        What::Released { how, .. } => hold.left = Some((how, event)),
        What::Lost { why, .. } => hold.lost = hold.lost.or(Some((*why, event))),
        _ => {}
    }
}
