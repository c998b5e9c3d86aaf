//! The server's door for worker processes: behind it each has a client of its own.

use std::io;
use std::path::Path;

use tokio::net::unix::OwnedReadHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::client::{ConnectFar, Far};
use super::wire::{
    Answer, Ask, Failed, Held, Messages, Numbered, Progressed, Pushed, Told, Valid, Wanted,
    write_all,
};
use crate::prelude::*;

/// How long the server goes on serving a client of which it hears nothing any more: until then its waiters
/// stand in the queue, and have their turn.
const SESSION: Duration = Duration::from_secs(5);

/// Lets processes in, for as long as this runtime lasts.
pub(super) fn open(path: &Path, connect: ConnectFar) -> io::Result<()> {
    let listener = UnixListener::bind(path)?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, connect.clone()));
        }
    });
    Ok(())
}

async fn serve(stream: UnixStream, connect: ConnectFar) {
    let (incoming, outgoing) = stream.into_split();
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(write_all(told, outgoing));
    let mut asks = Messages::of(incoming);
    let Some(far) = welcome(&mut asks, &connect, &tell).await else {
        return;
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(push_events(far.events(), tell.clone()));
    while let Some(Numbered { id, body }) = asks.next().await {
        while tasks.try_join_next().is_some() {}
        let (far, tell) = (Arc::clone(&far), tell.clone());
        tasks.spawn(async move {
            let reached = |reach| say(&tell, Told::Reached(numbered(id, reach)));
            let answer = answer(&far, body, reached).await;
            let answer = answer.unwrap_or_else(|error| Answer::Failed(Failed::of(&error)));
            say(&tell, Told::Answer(numbered(id, answer)));
        });
    }
    // Killed or gone: nobody says so to a server, which stops serving when its session is over.
    tokio::time::sleep(SESSION).await;
    tasks.shutdown().await;
    // A server that is down has nothing of it any more.
    let _ = far.close().await;
}

/// The client of a process that has said who it is.
async fn welcome(
    asks: &mut Messages<OwnedReadHalf>,
    connect: &ConnectFar,
    tell: &mpsc::UnboundedSender<Told>,
) -> Option<Arc<Far>> {
    let Numbered { id, body } = asks.next().await?;
    let Ask::Connect {
        identity,
        fence_base,
    } = body
    else {
        return None;
    };
    let mut context = Context::new(identity.parse().ok()?);
    context.fence_base = fence_base;
    let far = connect.open(context).await.ok()?;
    let has_window = connect.server.has_window;
    say(
        tell,
        Told::Answer(numbered(id, Answer::Welcome { has_window })),
    );
    Some(far)
}

fn numbered<T>(id: u64, body: T) -> Numbered<T> {
    Numbered { id, body }
}

/// A process that is gone is told nothing.
fn say(tell: &mpsc::UnboundedSender<Told>, told: Told) {
    let _ = tell.send(told);
}

async fn push_events(mut events: BoxStream<'static, Event>, tell: mpsc::UnboundedSender<Told>) {
    while let Some(event) = events.next().await {
        if let Some(pushed) = Pushed::of(&event) {
            say(&tell, Told::Event(pushed));
        }
    }
}

async fn answer(far: &Far, ask: Ask, reached: impl Fn(Progressed) + Send + Sync) -> Result<Answer> {
    Ok(match ask {
        Ask::Connect { .. } => return Err(Error::new(ErrorKind::Protocol, "connect")),
        Ask::Try(wanted) => {
            let grant = far.try_acquire(&wanted.claim()?).await?;
            Answer::Granted(grant.as_ref().map(Held::of))
        }
        Ask::Acquire(wanted) => {
            let claim = wanted.claim()?;
            let grant = far
                .wait(&claim, |reach| reached(Progressed::of(reach)))
                .await?;
            Answer::Granted(Some(Held::of(&grant)))
        }
        Ask::Renew(wanted) => Answer::Renewed(renewed(far, &wanted).await?),
        Ask::Release(wanted) => Answer::Released(far.release(&wanted.claim()?).await?),
        Ask::Pass(held, next) => {
            let passed = far.pass(&held.claim()?, &next.claim()?).await?;
            Answer::Passed(passed.released, Held::of_standing(&passed.next))
        }
        Ask::Replace(waiting, next) => {
            match far.replace(&waiting.claim()?, &next.claim()?).await? {
                Replaced::Gone => Answer::Replaced(None),
                Replaced::Now(standing) => Answer::Replaced(Some(Held::of_standing(&standing))),
            }
        }
        Ask::Close => {
            far.close().await?;
            Answer::Done
        }
    })
}

async fn renewed(
    far: &Far,
    wanted: &[(Wanted, u64)],
) -> Result<Vec<Result<Option<Valid>, Failed>>> {
    let now = Clock::system().now();
    // A renewal does not look at how long the grant was good for.
    let past = Validity::new(now, now, Duration::ZERO);
    let grants = wanted
        .iter()
        .map(|(wanted, number)| Ok(Grant::new(&wanted.claim()?, token(*number), past)))
        .collect::<Result<Vec<_>>>()?;
    let answers = far.renew(&grants.iter().collect::<Vec<_>>()).await;
    let valid = |answer: Renewal| match answer {
        Renewal::Extended(validity) => Some(Valid::of(validity)),
        Renewal::Gone => None,
    };
    let told = |answer: Result<Renewal>| answer.map(valid).map_err(|error| Failed::of(&error));
    Ok(answers.into_iter().map(told).collect())
}
