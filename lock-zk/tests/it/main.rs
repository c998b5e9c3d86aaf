//! The backend on real servers.
