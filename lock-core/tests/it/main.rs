//! Public API tests of lock-core.
