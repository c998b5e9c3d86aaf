//! What is switched while a proxy runs.

use std::sync::Arc;
use std::time::Duration;

use super::link::{How, Link};
use super::message::Message;
use super::rules::{Replies, Rules};
use super::scope::Scope;
use super::{SWITCH_DEADLINE, Shared};
use crate::wait::poll;

/// Connections of a [`Proxy`](super::Proxy), and the switches for them: all of its connections, as which the proxy
/// itself derefs, or those of [`connection`](super::Proxy::connection) and
/// [`connections`](super::Proxy::connections).
///
/// Switches hold for current and future connections, combine, and last until they are switched back, however long this
/// value lives. A switch has taken effect when its method returns.
#[derive(Clone, Debug)]
pub struct Connections {
    shared: Arc<Shared>,
    scope: Scope,
}

impl Connections {
    pub(super) fn new(shared: Arc<Shared>, scope: Scope) -> Self {
        Self { shared, scope }
    }

    /// Closes the connections in an orderly way: both sides see an end of file. New ones are accepted.
    ///
    /// A connection with a held request is closed towards the client only.
    pub fn cut(&self) {
        self.close_both(How::Fin);
    }

    /// Like [`cut`](Self::cut), with a reset instead of an end of file.
    pub fn reset(&self) {
        self.close_both(How::Rst);
    }

    /// Closes the connections towards the server only, with an end of file; their clients hear of that as of any close.
    pub fn cut_server(&self) {
        self.close(|link| link.close_server(How::Fin));
    }

    /// Closes the connections towards the client only, with an end of file; the server hears of that as of any close.
    pub fn cut_client(&self) {
        self.close(|link| link.close_client(How::Fin));
    }

    /// That one side has closed is not told to the other, which goes on believing in the connection: what it sends is
    /// swallowed, and nothing comes.
    ///
    /// With [`cut_server`](Self::cut_server), or when the server closes, only the client believes in it; with
    /// [`cut_client`](Self::cut_client), or when the client goes, only the server. The same happens to a new connection
    /// that the server refuses. [`cut`](Self::cut) and [`reset`](Self::reset) still close both sides.
    pub fn half_open(&self) {
        self.switch(|rules| rules.half_open = true);
    }

    /// Ends [`half_open`](Self::half_open): who has not heard of a close hears of it.
    pub fn tell_closes(&self) {
        self.switch(|rules| rules.half_open = false);
    }

    /// Nothing flows either way, not even a close; connections stay open.
    ///
    /// New ones are accepted (the kernel does that), and the server does not hear of them. What is sent meanwhile
    /// flows after [`heal`](Self::heal), as after a partition that TCP has survived.
    pub fn black_hole(&self) {
        self.switch(|rules| rules.black_hole = true);
    }

    /// Ends [`black_hole`](Self::black_hole).
    pub fn heal(&self) {
        self.switch(|rules| rules.black_hole = false);
    }

    /// Lets everything arrive `each_way` later than it was sent. Zero ends it.
    pub fn delay(&self, each_way: Duration) {
        self.switch(|rules| rules.delay = each_way);
    }

    /// Requests are forwarded, replies are kept: executed, not answered.
    pub fn hold_replies(&self) {
        self.switch(|rules| rules.replies = Replies::Hold);
    }

    /// Lets held replies go, and later ones pass.
    pub fn release_replies(&self) {
        self.switch(|rules| rules.replies = Replies::Pass);
    }

    /// Requests are forwarded, replies are thrown away: executed, never answered. Held replies are thrown away too.
    ///
    /// A connection that lost a reply stays silent towards the client for good, also after [`Proxy::pass`]: with
    /// one reply missing, the next one would be taken for the answer to the wrong request, which no network does.
    ///
    /// [`Proxy::pass`]: super::Proxy::pass
    pub fn drop_replies(&self) {
        self.switch(|rules| rules.replies = Replies::Drop);
    }

    /// Throws away what the server sends unasked: every RESP3 push except the confirmations of subscribing and
    /// unsubscribing, every watch that fires in ZooKeeper, every answer of an etcd watch that has events in it.
    ///
    /// [`Proxy::pass`](super::Proxy::pass) and [`pass_pushes`](Self::pass_pushes) end it.
    pub fn drop_pushes(&self) {
        self.switch(|rules| rules.drop_pushes = true);
    }

    /// Ends [`drop_pushes`](Self::drop_pushes).
    pub fn pass_pushes(&self) {
        self.switch(|rules| rules.drop_pushes = false);
    }

    /// Loses the `nth` request from now on, 1 being the next: a whole RESP command, ZooKeeper request, or gRPC message.
    ///
    /// What the client sends behind it on its connection, or, in HTTP/2, on its stream, is lost too, as if the path to
    /// the server had broken there with nobody told: no network loses a part out of the middle. Zero loses nothing, and
    /// takes an earlier number back.
    ///
    /// The connections together are counted. Messages that are lost anyway are not.
    pub fn drop_nth_request(&self, nth: u64) {
        self.switch(|rules| rules.drop_next.request = Some(nth).filter(|&nth| nth > 0));
    }

    /// Loses the `nth` reply from now on, pushes not counted, and all that follows on its connection, as
    /// [`drop_replies`](Self::drop_replies) does. Counted as by [`drop_nth_request`](Self::drop_nth_request).
    pub fn drop_nth_reply(&self, nth: u64) {
        self.switch(|rules| rules.drop_next.reply = Some(nth).filter(|&nth| nth > 0));
    }

    /// Loses the `nth` push from now on, and only that: see [`drop_pushes`](Self::drop_pushes). Counted as by
    /// [`drop_nth_request`](Self::drop_nth_request).
    pub fn drop_nth_push(&self, nth: u64) {
        self.switch(|rules| rules.drop_next.push = Some(nth).filter(|&nth| nth > 0));
    }

    /// Holds the first client command that matches, and everything behind it on its connection, or, in HTTP/2, on its
    /// stream, its cancellation too.
    ///
    /// `matches` sees one whole RESP command or ZooKeeper request as it was written ([`resp::is_command`],
    /// [`jute::is_request`]), a gRPC message (as far as its first data frame goes), or a chunk of bytes where the
    /// protocol is not spoken. It is forgotten after its first match, so that the retry on the next connection passes.
    /// It must not call the proxy.
    ///
    /// The connection to the server stays open whatever the client does: a request under way in the network.
    ///
    /// [`resp::is_command`]: crate::fault::resp::is_command
    /// [`jute::is_request`]: crate::fault::jute::is_request
    pub fn hold_requests_matching(&self, matches: impl Fn(&[u8]) -> bool + Send + 'static) {
        self.hold(move |message| matches(&message.bytes[message.body..]));
    }

    /// Like [`hold_requests_matching`](Self::hold_requests_matching), and only for a [`Call`](super::Call) with this name.
    ///
    /// Holds nothing where RESP or nothing known is spoken.
    pub fn hold_calls(&self, name: &str, matches: impl Fn(&[u8]) -> bool + Send + 'static) {
        let name = name.to_owned();
        self.hold(move |message| {
            let call = message.call.as_ref();
            call.is_some_and(|call| call.name == name) && matches(&message.bytes[message.body..])
        });
    }

    /// Sends held requests on, over their old connections, and says how many there were: the late copy.
    ///
    /// The server's answers to a client that is gone, or that has given the request up, are counted as
    /// [`late_replies`](super::Stats::late_replies): wait for those to know that the late copy was executed. A cancellation that was held
    /// with a request follows behind its answer.
    pub fn deliver_held(&self) -> u64 {
        let mut delivered = 0;
        self.each_link(|_, link| {
            delivered += link.up.held();
            link.up.let_go();
        });
        self.switch(|rules| rules.hold = None);
        delivered
    }

    /// Throws held requests away, and closes the connections they were held on: lost in the network.
    pub fn discard_held(&self) {
        self.switch(|rules| rules.hold = None);
        self.close(|link| {
            if link.up.is_held() {
                link.up.clear();
                link.close_client(How::Rst);
                link.close_server(How::Rst);
            }
        });
    }

    fn hold(&self, matches: impl Fn(&Message) -> bool + Send + 'static) {
        self.switch(|rules| rules.hold = Some(Box::new(matches)));
    }

    fn switch(&self, change: impl FnOnce(&mut Rules)) {
        change(self.shared.lock().rules.of(&self.scope));
        self.shared.announce();
    }

    fn close_both(&self, how: How) {
        self.close(|link| {
            link.close_client(how);
            if !link.up.is_held() {
                link.close_server(how);
            }
        });
    }

    /// Tells links to close, and waits until they have, as far as they were told to.
    fn close(&self, tell: impl Fn(&mut Link)) {
        let mut told = Vec::new();
        self.each_link(|number, link| {
            tell(link);
            told.push(number);
        });
        let closed = || {
            let state = self.shared.lock();
            let mut links = told.iter().filter_map(|number| state.links.get(number));
            links.all(Link::is_closed_as_told).then_some(())
        };
        poll(SWITCH_DEADLINE, closed).expect("the proxy's thread closes connections");
    }

    fn each_link(&self, mut visit: impl FnMut(u64, &mut Link)) {
        for (number, link) in &mut self.shared.lock().links {
            if self.scope.contains(&link.peer) {
                visit(*number, link);
            }
        }
    }
}
