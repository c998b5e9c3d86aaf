//! The examples, run as a reader of the README runs them.

mod flash_sale;
