//! The real binary, on real backends.

mod bench;
mod cli;
mod conformance;
mod counter;
mod death;
mod file;
mod fixture;
mod headless;
mod loss;
mod run;
mod stories;
mod strays;
mod terminal;
mod wait;
mod watch;
