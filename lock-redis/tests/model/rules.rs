//! The rules of the hand-off protocol, as switches.
//!
//! Each is a rule of the scripts (`src/lua/`), of the inbox (`src/inbox.rs`) or of core's line that
//! looks odd until one sees what goes wrong without it. The tests in `switches.rs` show that, for
//! each: the model without the rule breaks a property, and the model with all of them breaks none.

/// One rule of the protocol.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Rule {
    /// A release removes the caller's own waiter entry before it promotes (`release_queue.lua`).
    /// Off: it promotes first.
    CallerLeavesBeforePromotion,
    /// A free lock with a queue belongs to the queue (`acquire_queue.lua`). Off: to who asks.
    QueueOwnsFreeLock,
    /// The release of a nonce that has an unanswered request writes a tombstone
    /// (`Inbox::leaving`). Off: it writes none.
    UnansweredIsBuried,
    /// A request whose future was dropped counts as unanswered (`Client::claim_call`). Off: it is
    /// forgotten.
    DroppedIsUnanswered,
    /// Requests of a buried nonce do nothing (`acquire.lua`, `pass.lua`, `replace.lua`). Off: they
    /// are run.
    TombstonesAreRespected,
    /// Of a `pass` that was not answered only the release is repeated (`Line::give_back`). Off: the
    /// whole request is sent again, as a transport with hidden retries does it.
    OnlyReleaseHalfIsRepeated,
    /// `replace` puts the next nonce where the old one stood (`replace.lua`). Off: a release and an
    /// acquire, one after the other.
    ReplaceIsOneScript,
    /// `replace` buries the old nonce whatever the client knows (`replace.lua`). Off: never.
    ReplaceBuriesTheOld,
    /// No grant of a nonce that is being released is adopted (`Inbox::pushed`). Off: it is.
    CancelledIsNotAdopted,
    /// A nonce is registered before it is sent (`Inbox::sending`). Off: when it is answered.
    RegisteredBeforeSent,
    /// A pushed lease counts from the last answered request (`Record::granted_since`). Off: from its
    /// arrival.
    PushCountsFromReference,
    /// A reference is of use on its own connection only (`Record::granted_since`). Off: on any.
    ReferencesDieWithConnection,
    /// A lease in an answer counts from the sending (`Validity::new`). Off: from the arrival.
    AnswerCountsFromSending,
    /// A grant that may be over is not handed out (`Inbox::pushed`, `Inbox::outcome`,
    /// `Line::confirm`). Off: it is.
    OverdueIsNotUsed,
    /// The server is asked about a grant that may be over (`Inbox::pushed`, `Inbox::outcome`). Off: it
    /// is dropped, and the claim waits for another push.
    OverdueIsAskedAbout,
    /// A holder's end is at most its lease away, whatever happened to the clock (`open` in
    /// `lock.lua`). Off: it stays where it was.
    HolderIsClamped,
    /// The same for a waiter's end (`sweep` in `queue.lua`).
    WaiterIsClamped,
    /// A hand-off grants the claim window (`promote` in `queue.lua`). Off: the whole TTL.
    HandOffGrantsClaimWindow,
    /// A place renewal says when the nonce holds by now (`place.lua`). Off: it says "queued".
    PlaceReportsGrant,
    /// Every waiter asks on a new connection (`Inbox::verify_all`). Off: when it is due.
    PlacesAreRenewedOnConnect,
    /// A place renewal notices a holder whose lease has ended (`place.lua`). Off: it only looks.
    PlaceNoticesExpiry,
    /// A token is larger than the last one (`grant` in `lock.lua`).
    TokenAboveLast,
    /// A token is at least the server's time (`grant` in `lock.lua`).
    TokenFromTime,
    /// A token is larger than all that its client has seen (`grant` in `lock.lua`).
    TokenAboveSeen,
    /// A renewal changes nothing when its nonce does not hold (`renew.lua`). Off: it takes a lock
    /// that nobody holds.
    RenewalNeverRecreates,
    /// A renewal does not lengthen a lease that has ended (`renew.lua`). Off: it does, as long as
    /// nobody else has it.
    RenewalNeverRevives,
    /// A release frees only its own nonce (`release.lua`). Off: whoever holds.
    ReleaseIsByNonce,
}

impl Rule {
    /// Every rule.
    pub(crate) const ALL: &'static [Self] = &[
        Self::CallerLeavesBeforePromotion,
        Self::QueueOwnsFreeLock,
        Self::UnansweredIsBuried,
        Self::DroppedIsUnanswered,
        Self::TombstonesAreRespected,
        Self::OnlyReleaseHalfIsRepeated,
        Self::ReplaceIsOneScript,
        Self::ReplaceBuriesTheOld,
        Self::CancelledIsNotAdopted,
        Self::RegisteredBeforeSent,
        Self::PushCountsFromReference,
        Self::ReferencesDieWithConnection,
        Self::AnswerCountsFromSending,
        Self::OverdueIsNotUsed,
        Self::OverdueIsAskedAbout,
        Self::HolderIsClamped,
        Self::WaiterIsClamped,
        Self::HandOffGrantsClaimWindow,
        Self::PlaceReportsGrant,
        Self::PlacesAreRenewedOnConnect,
        Self::PlaceNoticesExpiry,
        Self::TokenAboveLast,
        Self::TokenFromTime,
        Self::TokenAboveSeen,
        Self::RenewalNeverRecreates,
        Self::RenewalNeverRevives,
        Self::ReleaseIsByNonce,
    ];
}

/// Which rules a model keeps: all of them, or all but one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Rules {
    off: Option<Rule>,
}

impl Rules {
    pub(crate) const ALL: Self = Self { off: None };

    pub(crate) const fn without(rule: Rule) -> Self {
        Self { off: Some(rule) }
    }

    pub(crate) fn keep(self, rule: Rule) -> bool {
        self.off != Some(rule)
    }
}
