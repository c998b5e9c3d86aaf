//! Several members.
