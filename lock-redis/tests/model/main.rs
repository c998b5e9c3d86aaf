//! An explicit-state model of the hand-off protocol, and what it shows.
//!
//! One lock, a few clients, every order of their steps: requests that run late or never, lost pushes,
//! crashes, pauses, callers that go away, clocks that are set, servers that lose their data. ADR 0010
//! says what is in it and what is not.

mod action;
mod client;
mod explore;
mod heal;
mod network;
mod properties;
mod rules;
mod scenes;
mod server;
mod state;
mod walk;

// The very scripts that ship.
#[path = "../../src/scripts.rs"]
#[expect(dead_code, reason = "the tests use some of what the client does")]
mod scripts;

mod binding;
mod switches;
mod whole;
