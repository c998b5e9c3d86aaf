//! Under construction.

#[cfg(feature = "servers")]
pub mod fault;
#[cfg(feature = "servers")]
pub mod servers;
#[cfg(feature = "servers")]
mod wait;
