//! A case together with the code that finds out about it.

use futures_util::future::BoxFuture;

use crate::case::{Case, Verdict};
use crate::stand::Stand;

/// A case that can be run.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) case: Case,
    pub(crate) run: fn(Stand) -> BoxFuture<'static, Verdict>,
}

/// The entry that a function of a module is: its identifier, the function, and what it takes.
macro_rules! case {
    ($id:literal, $run:ident $(, $change:ident ( $($arg:expr),* ))* $(,)?) => {
        $crate::cases::Entry {
            case: $crate::case::Case::base($id, stringify!($run))$(.$change($($arg),*))*,
            run: |stand| Box::pin(async move { $run(stand).await.map(Into::into) }),
        }
    };
}
pub(crate) use case;
