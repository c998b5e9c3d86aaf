//! `lockctl release`: breaking a lock on purpose.

use distlock::FencingToken;
use serde_json::json;

use crate::cli::{Format, ReleaseArgs};
use crate::connect;
use crate::exit::Failure;
use crate::output;

pub(crate) fn release(url: &str, format: Format, args: &ReleaseArgs) -> Result<u8, Failure> {
    let ReleaseArgs { name, token, force } = args;
    let wanted = FencingToken::new(*token)
        .map_err(|_| Failure::usage(format!("{token} is no fencing token; see lockctl status")))?;
    if !force {
        return Err(Failure::usage(format!(
            "this takes {name:?} away from a holder that may be at work; say --force if that is meant"
        )));
    }
    let broken = connect::with_locks(url, async |locks| {
        Ok(locks.break_hold(name, wanted).await?)
    })?;
    match format {
        Format::Json => output::print_json(&json!({
            "name": name,
            "token": token,
            "released": broken,
        }))?,
        Format::Text => {
            let name = output::shown(name);
            output::print(&match broken {
                true => format!("{name}: taken from the holder with token {token}\n"),
                false => format!("{name}: nobody holds it with token {token}\n"),
            })?;
        }
    }
    Ok(output::verdict(broken))
}
