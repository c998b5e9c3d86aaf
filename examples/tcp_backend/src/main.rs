//! The server alone: `tcp-locks 127.0.0.1:7700`.

use std::process::ExitCode;

use tcp_locks::{Disk, Server};

fn main() -> ExitCode {
    let Some(Ok(addr)) = std::env::args().nth(1).map(|addr| addr.parse()) else {
        eprintln!("usage: tcp-locks ADDRESS:PORT");
        return ExitCode::from(64);
    };
    match Server::start(addr, Disk::default()) {
        Ok(server) => server.join(),
        Err(error) => eprintln!("tcp-locks: {addr}: {error}"),
    }
    ExitCode::FAILURE
}
