//! `lockctl status`: one lock.

use crate::cli::Format;
use crate::connect;
use crate::exit::{self, Failure};
use crate::look;
use crate::output;

pub(crate) fn status(url: &str, format: Format, name: &str) -> Result<u8, Failure> {
    let lock = connect::with_locks(url, async |locks| Ok(locks.inspect(name).await?))?;
    match format {
        Format::Json => output::print_json(&look::json(&lock))?,
        Format::Text => {
            let last = lock
                .last_token
                .map_or_else(String::new, |token| format!(", last token {token}"));
            let text = format!("{}{last}\n{}", look::headline(&lock), look::people(&lock));
            output::print(&text)?;
        }
    }
    Ok(exit::OK)
}
