//! `lockctl watch`: locks as they are now, again and again, until `q`.

mod screen;

use std::io::{IsTerminal, stdin, stdout};
use std::thread;

use distlock::{Clock, LockState, Locks};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use self::screen::{Screen, Subject};
use crate::cli::WatchArgs;
use crate::connect;
use crate::exit::{self, Failure};
use crate::list;

/// What a look at the backend came to.
type Seen = Result<Vec<LockState>, Failure>;

pub(crate) fn watch(url: &str, args: &WatchArgs) -> Result<u8, Failure> {
    if !stdout().is_terminal() || !stdin().is_terminal() {
        return Err(Failure::usage(
            "watch needs a terminal; for a pipe there are status and list, with --format json for machines",
        ));
    }
    connect::with_locks(url, async |locks| {
        let subject = match &args.name {
            Some(name) => Subject::One(name.clone()),
            None => Subject::All,
        };
        // Nothing is drawn over before there is something to show.
        let first = look(&locks, &subject).await?;
        let failed = |error| Failure::system("the terminal", &error);
        let mut terminal = ratatui::try_init().map_err(failed)?;
        let mut screen = Screen::new(locks.capabilities().backend, subject, args.every);
        screen.show(Ok(first));
        let outcome = stay(&mut terminal, &mut screen, locks, args).await;
        ratatui::restore();
        outcome
    })
}

async fn stay(
    terminal: &mut ratatui::DefaultTerminal,
    screen: &mut Screen,
    locks: Locks,
    args: &WatchArgs,
) -> Result<u8, Failure> {
    let failed = |error| Failure::system("the terminal", &error);
    let mut ended = signal(SignalKind::terminate()).map_err(failed)?;
    let mut hung_up = signal(SignalKind::hangup()).map_err(failed)?;
    let mut events = events();
    let (sender, mut looks) = mpsc::channel(1);
    let (subject, every) = (screen.subject().clone(), args.every);
    let looking = tokio::spawn(async move {
        let clock = Clock::system();
        loop {
            clock.sleep(every).await;
            if sender.send(look(&locks, &subject).await).await.is_err() {
                return;
            }
        }
    });
    let code = loop {
        terminal.draw(|frame| screen.draw(frame)).map_err(failed)?;
        tokio::select! {
            Some(seen) = looks.recv() => screen.show(seen),
            event = events.recv() => match event {
                Some(Event::Key(key)) if quits(key) => break exit::OK,
                Some(Event::Key(key)) => screen.key(key.code),
                // Whatever else it was, the screen is drawn anew.
                Some(_) => {}
                None => break exit::OK,
            },
            _ = ended.recv() => break exit::signalled(nix::sys::signal::Signal::SIGTERM),
            _ = hung_up.recv() => break exit::signalled(nix::sys::signal::Signal::SIGHUP),
        }
    };
    looking.abort();
    Ok(code)
}

async fn look(locks: &Locks, subject: &Subject) -> Seen {
    match subject {
        Subject::All => list::collect(locks, "").await,
        Subject::One(name) => Ok(vec![locks.inspect(name).await?]),
    }
}

/// What the terminal says, read on a thread that ends with the process: there is no other way to wait
/// for a key and for something else.
fn events() -> mpsc::UnboundedReceiver<Event> {
    let (sender, events) = mpsc::unbounded_channel();
    thread::spawn(move || {
        while let Ok(event) = event::read() {
            if sender.send(event).is_err() {
                return;
            }
        }
    });
    events
}

fn quits(key: KeyEvent) -> bool {
    let interrupt = key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c');
    let quit = matches!(key.code, KeyCode::Char('q') | KeyCode::Esc);
    key.kind == KeyEventKind::Press && (quit || interrupt)
}
