//! Which connections a switch is for.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use super::rules::{Rules, Ruling};

/// A client's connection to a proxy, as one selects by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Peer {
    /// The number of the connection among all that the proxy has accepted, from 1.
    pub number: u64,
    /// The client's end.
    pub addr: SocketAddr,
}

/// All connections, or some.
#[derive(Clone)]
pub(super) enum Scope {
    All,
    Number(u64),
    Selected(Arc<dyn Fn(&Peer) -> bool + Send + Sync>),
}

impl Scope {
    pub(super) fn contains(&self, peer: &Peer) -> bool {
        match self {
            Self::All => true,
            Self::Number(number) => peer.number == *number,
            Self::Selected(selects) => selects(peer),
        }
    }

    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, Self::All) => true,
            (Self::Number(one), Self::Number(other)) => one == other,
            (Self::Selected(one), Self::Selected(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("All"),
            Self::Number(number) => f.debug_tuple("Number").field(number).finish(),
            Self::Selected(_) => f.write_str("Selected"),
        }
    }
}

/// The rules of every scope that something was switched for.
#[derive(Debug, Default)]
pub(super) struct Book(Vec<(Scope, Rules)>);

impl Book {
    /// The rules of this scope alone.
    pub(super) fn of(&mut self, scope: &Scope) -> &mut Rules {
        let at = self.0.iter().position(|(known, _)| known.is(scope));
        let at = at.unwrap_or_else(|| {
            self.0.push((scope.clone(), Rules::default()));
            self.0.len() - 1
        });
        &mut self.0[at].1
    }

    /// What this connection is under.
    pub(super) fn ruling(&mut self, peer: &Peer) -> Ruling<'_> {
        let concerned = self.0.iter_mut().filter(|(scope, _)| scope.contains(peer));
        Ruling::of(concerned.map(|(_, rules)| rules))
    }
}
