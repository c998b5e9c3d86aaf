//! The command line.

use clap::Parser;
use clap::error::ErrorKind;

use crate::failure::Failure;

/// Sells one item to many buyers at once: without a lock, with it, and past a pause.
#[derive(Debug, Parser)]
#[command(name = "flash_sale")]
pub(crate) struct Args {
    /// The lock backend: memory:// needs no server, redis://127.0.0.1:6379 does
    #[arg(long, default_value = "memory://")]
    pub(crate) url: String,

    /// Spread the buyers over this many processes
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) processes: u32,

    /// How many buyers come, or a series such as 50,100,200
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "50,100,200",
        value_parser = clap::value_parser!(u32).range(1..=10_000)
    )]
    pub(crate) buyers: Vec<u32>,

    /// How many items there are [default: one for every second buyer]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    stock: Option<u32>,

    /// Print one JSON object and nothing else
    #[arg(long)]
    pub(crate) json: bool,

    /// Be one of the processes; started by the program itself
    #[arg(long, hide = true)]
    pub(crate) worker: bool,
}

impl Args {
    /// Reads the command line; help goes to the terminal, mistakes into one line.
    pub(crate) fn read() -> Result<Self, Failure> {
        Self::try_parse().map_err(|error| match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => error.exit(),
            _ => {
                let text = error.to_string();
                let line = text.lines().next().unwrap_or_default();
                Failure::usage(line.trim_start_matches("error: "))
            }
        })
    }

    pub(crate) fn stock_for(&self, buyers: u32) -> u32 {
        self.stock.unwrap_or(buyers.div_ceil(2))
    }
}
