//! Requests, put together from how they began and how they ended.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::event::{Event, Refusal, What};

/// One request whose beginning was written down.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) who: &'a str,
    pub(super) asked: Duration,
    pub(super) waits: bool,
    pub(super) event: &'a Event,
    /// How it ended, and when; `None` when nobody saw that.
    pub(super) end: Option<(Answer<'a>, Duration)>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answer<'a> {
    Granted(u64),
    Refused(&'a Refusal),
}

impl Request<'_> {
    /// The token it was granted, and when.
    pub(super) fn granted(&self) -> Option<(u64, Duration)> {
        match self.end {
            Some((Answer::Granted(token), at)) => Some((token, at)),
            _ => None,
        }
    }
}

/// The requests of every lock, in the order in which they began.
pub(super) fn requests_by_name(events: &[Event]) -> BTreeMap<&str, Vec<Request<'_>>> {
    let mut requests: BTreeMap<&str, Vec<Request<'_>>> = BTreeMap::new();
    let mut places: HashMap<(&str, &str, Duration), usize> = HashMap::new();
    for event in events {
        let (name, who) = (event.name.as_str(), event.who.as_str());
        let (asked, answer) = match &event.what {
            What::Asked { waits } => {
                let of_name = requests.entry(name).or_default();
                places.insert((name, who, event.at), of_name.len());
                of_name.push(Request {
                    who,
                    asked: event.at,
                    waits: *waits,
                    event,
                    end: None,
                });
                continue;
            }
            What::Granted { asked, token } => (*asked, Answer::Granted(*token)),
            What::Refused { asked, why } => (*asked, Answer::Refused(why)),
            _ => continue,
        };
        let place = places.get(&(name, who, asked));
        if let Some((place, requests)) = place.zip(requests.get_mut(name)) {
            requests[*place].end = Some((answer, event.at));
        }
    }
    requests
}
