//! Tools that break the connection between a client and its server on purpose.

pub mod resp;
