//! Under construction.

#[cfg(feature = "servers")]
pub mod fault;
