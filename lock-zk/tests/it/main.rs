//! The backend on real servers.

mod access;
mod cluster;
mod cycle;
mod fence;
mod fixture;
mod late;
mod nodes;
mod queue;
mod session;
mod tokens;
mod types;
