//! What is on the screen.

use std::time::Duration;

use distlock::LockState;
use ratatui::Frame;
use ratatui::crossterm::event::KeyCode;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{Row, Table, TableState};

use super::Seen;
use crate::look;
use crate::output;

/// What is watched.
#[derive(Clone, Debug)]
pub(crate) enum Subject {
    /// Every lock in use.
    All,
    /// One lock, with everybody who waits for it.
    One(String),
}

/// What was seen last, and where the reader is in it.
pub(crate) struct Screen {
    backend: &'static str,
    subject: Subject,
    every: Duration,
    locks: Vec<LockState>,
    /// Why the last look failed: what is shown then is older.
    trouble: Option<String>,
    place: TableState,
}

impl Screen {
    pub(crate) fn new(backend: &'static str, subject: Subject, every: Duration) -> Self {
        Self {
            backend,
            subject,
            every,
            locks: Vec::new(),
            trouble: None,
            place: TableState::new(),
        }
    }

    pub(crate) fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Takes over what was seen.
    pub(crate) fn show(&mut self, seen: Seen) {
        match seen {
            Ok(locks) => {
                self.locks = locks;
                self.trouble = None;
            }
            Err(failure) => self.trouble = Some(failure.to_string()),
        }
    }

    /// Moves in a list that is longer than the screen.
    pub(crate) fn key(&mut self, key: KeyCode) {
        let offset = self.place.offset_mut();
        *offset = match key {
            KeyCode::Down | KeyCode::Char('j') => offset.saturating_add(1),
            KeyCode::Up | KeyCode::Char('k') => offset.saturating_sub(1),
            KeyCode::Home => 0,
            _ => *offset,
        };
    }

    pub(crate) fn draw(&mut self, frame: &mut Frame<'_>) {
        let [top, body, bottom] = Layout::vertical([
            Constraint::Length(2),
            Constraint::Min(1),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        frame.render_widget(Line::from(self.headline()).bold(), top);
        let rows = self.rows();
        let last = rows.len().saturating_sub(2);
        let offset = self.place.offset_mut();
        *offset = (*offset).min(last);
        frame.render_stateful_widget(table(&rows), body, &mut self.place);
        frame.render_widget(self.footer(), bottom);
    }

    fn headline(&self) -> String {
        match (&self.subject, self.locks.first()) {
            (Subject::One(_), Some(lock)) => look::headline(lock),
            _ => format!("{}: {} in use", self.backend, self.locks.len()),
        }
    }

    fn rows(&self) -> Vec<Vec<String>> {
        match (&self.subject, self.locks.first()) {
            (Subject::One(_), Some(lock)) => {
                look::people_rows(lock).into_iter().map(Vec::from).collect()
            }
            _ => std::iter::once(look::COLUMNS.map(str::to_owned))
                .chain(self.locks.iter().map(look::row))
                .map(Vec::from)
                .collect(),
        }
    }

    fn footer(&self) -> Line<'static> {
        match &self.trouble {
            Some(trouble) => Line::from(trouble.clone()).red(),
            None => {
                let every = output::age(self.every);
                Line::from(format!("every {every}; q quits, up and down scroll")).dim()
            }
        }
    }
}

/// A table whose first row is its heading.
fn table(rows: &[Vec<String>]) -> Table<'static> {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
        Constraint::Length(u16::try_from(widest).unwrap_or(u16::MAX))
    };
    let mut rows = rows.iter().map(|row| Row::new(row.clone()));
    let heading = rows.next().unwrap_or_default();
    Table::new(
        rows.collect::<Vec<_>>(),
        (0..columns).map(width).collect::<Vec<_>>(),
    )
    .header(heading.style(Style::new().reversed()))
    .column_spacing(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Failure;
    use distlock::LockName;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn shown(screen: &mut Screen) -> String {
        let mut terminal = Terminal::new(TestBackend::new(80, 6)).expect("a screen");
        terminal.draw(|frame| screen.draw(frame)).expect("drawn");
        terminal.backend().to_string()
    }

    #[test]
    fn names_are_shown_and_trouble_does_not_wipe_them() {
        let lock = LockState {
            name: LockName::new("nightly").expect("a name"),
            holders: Vec::new(),
            waiters: Vec::new(),
            last_token: None,
        };
        let mut screen = Screen::new("toy", Subject::All, Duration::from_secs(1));
        screen.show(Ok(vec![lock]));
        screen.key(KeyCode::Down);
        let text = shown(&mut screen);
        assert!(
            text.contains("toy: 1 in use") && text.contains("nightly"),
            "{text}"
        );
        screen.show(Err(Failure::usage("it is away")));
        let text = shown(&mut screen);
        assert!(
            text.contains("it is away") && text.contains("nightly"),
            "{text}"
        );
    }
}
