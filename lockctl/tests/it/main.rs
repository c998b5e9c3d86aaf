//! The real binary, on real backends.

mod cli;
mod counter;
mod death;
mod fixture;
mod loss;
mod run;
mod terminal;
mod wait;
