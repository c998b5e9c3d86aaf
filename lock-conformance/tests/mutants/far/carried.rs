//! Which session of a client carries which claim, as the server has it.

use tokio::sync::mpsc;

use crate::prelude::*;

/// Where a session hears which of its claims have ended with it.
pub(super) type Ends = mpsc::UnboundedSender<Vec<Nonce>>;

/// Every claim that came in a session.
#[derive(Debug, Default)]
pub(super) struct Carried(Shared<HashMap<Nonce, (Claim, Ends)>>);

impl Carried {
    pub(super) fn add(&self, claim: &Claim, session: &Ends) {
        let carried = (claim.clone(), session.clone());
        self.0.lock().insert(claim.nonce, carried);
    }

    pub(super) fn forget(&self, claim: &Claim) {
        self.0.lock().remove(&claim.nonce);
    }

    /// Ends the session that carries this claim: everything that it carried, and where to tell it.
    pub(super) fn end_session_of(&self, nonce: Nonce) -> Option<(Vec<Claim>, Ends)> {
        let mut carried = self.0.lock();
        let session = carried.get(&nonce)?.1.clone();
        let ended = carried.extract_if(|_, (_, other)| other.same_channel(&session));
        Some((ended.map(|(_, (claim, _))| claim).collect(), session))
    }
}
