//! `lockctl list`: every lock in use.

use std::collections::BTreeSet;

use distlock::{Cursor, LockName, LockState, Locks};

use crate::cli::Format;
use crate::connect;
use crate::exit::{self, Failure};
use crate::look;
use crate::output;

pub(crate) fn list(url: &str, format: Format, prefix: &str) -> Result<u8, Failure> {
    let in_use = connect::with_locks(url, async |locks| collect(&locks, prefix).await)?;
    match format {
        Format::Json => {
            let all = in_use.iter().map(look::json).collect();
            output::print_json(&serde_json::Value::Array(all))?;
        }
        Format::Text => output::print(&text(&in_use))?,
    }
    Ok(exit::OK)
}

/// Every lock that begins with `prefix` and has a holder or a waiter, by name.
pub(crate) async fn collect(locks: &Locks, prefix: &str) -> Result<Vec<LockState>, Failure> {
    let mut in_use = Vec::new();
    for name in names(locks, prefix).await? {
        let lock = locks.inspect(&name).await?;
        // It may have been given back since it was listed.
        if !lock.holders.is_empty() || !lock.waiters.is_empty() {
            in_use.push(lock);
        }
    }
    Ok(in_use)
}

async fn names(locks: &Locks, prefix: &str) -> Result<BTreeSet<LockName>, Failure> {
    let mut names = BTreeSet::new();
    let mut cursor = Cursor::default();
    loop {
        let page = locks.list(prefix, cursor).await?;
        names.extend(page.names);
        match page.next {
            Some(next) => cursor = next,
            None => return Ok(names),
        }
    }
}

fn text(in_use: &[LockState]) -> String {
    let heading = std::iter::once(look::COLUMNS.map(str::to_owned));
    let rows: Vec<_> = heading.chain(in_use.iter().map(look::row)).collect();
    output::table(&rows)
}
