//! R10: names that are taken for other names.

use std::borrow::Cow;

use crate::prelude::*;

pub(crate) const MUTANTS: &[Mutant] = &[
    mutant!(
        CutsAtTheSlash,
        "has one lock for everything below the same directory",
        ["R1.03"]
    ),
    mutant!(FoldsCase, "folds names to lower case", ["R10.01"]),
    mutant!(
        ComposesUnicode,
        "composes what is written decomposed",
        ["R10.02"]
    ),
    mutant!(
        ResolvesPaths,
        "takes names for paths and resolves them",
        ["R10.03"]
    ),
    mutant!(CutsNames, "cuts names after 255 characters", ["R10.04"]),
    mutant!(
        TakesBracesForTags,
        "takes what is in braces for the whole name",
        ["R10.05"]
    ),
    mutant!(DropsGlobs, "drops glob characters from names", ["R10.06"]),
    mutant!(TrimsNames, "trims blanks and quotes off names", ["R10.07"]),
    mutant!(
        LooksByPrefix,
        "shows the first lock that begins with the name it is asked for",
        ["R10.09"]
    ),
    mutant!(
        ListsOnePage,
        "lists a hundred names and ends there",
        ["R10.10"]
    ),
    mutant!(
        ListsByPattern,
        "takes the prefix of a listing for a pattern",
        ["R10.11"]
    ),
    mutant!(
        WakesPlainNames,
        "wakes waiters only of names without a blank",
        ["R10.12"]
    ),
];

fn named(text: &str) -> LockName {
    LockName::new(text).expect("mutants make names of names")
}

/// A bend whose only defect is the name it takes another for.
macro_rules! renames {
    ($($bend:ident: |$name:ident| $other:expr;)*) => {
        $(
            #[derive(Debug, Default)]
            struct $bend;

            impl Bend for $bend {
                fn name(&self, name: &LockName) -> LockName {
                    let $name = name.as_str();
                    named(&Cow::<str>::from($other))
                }
            }
        )*
    };
}

renames! {
    CutsAtTheSlash: |name| name.split('/').next().unwrap_or(name);
    FoldsCase: |name| name.to_lowercase();
    ComposesUnicode: |name| name.replace("e\u{301}", "\u{e9}");
    ResolvesPaths: |name| resolved(name);
    CutsNames: |name| name.chars().take(255).collect::<String>();
    TakesBracesForTags: |name| tag(name).unwrap_or(name);
    DropsGlobs: |name| name.replace(['*', '?', '[', ']', '^', '!', '\\'], "");
    TrimsNames: |name| name.trim_matches(|c: char| c.is_whitespace() || "'\"".contains(c));
}

fn resolved(path: &str) -> String {
    let steps: Vec<_> = path
        .split('/')
        .filter(|step| !matches!(*step, "" | "."))
        .collect();
    steps.join("/")
}

/// What is between the first braces, if there is anything.
fn tag(name: &str) -> Option<&str> {
    let (_, rest) = name.split_once('{')?;
    let (tag, _) = rest.split_once('}')?;
    (!tag.is_empty()).then_some(tag)
}

#[derive(Debug, Default)]
struct LooksByPrefix;

#[async_trait]
impl Bend for LooksByPrefix {
    async fn inspect(&self, real: &Real, name: &LockName) -> Result<LockState> {
        let found = real.list(name.as_str(), Cursor::default()).await?;
        let mut state = real.inspect(found.names.first().unwrap_or(name)).await?;
        state.name = name.clone();
        Ok(state)
    }
}

#[derive(Debug, Default)]
struct ListsOnePage;

#[async_trait]
impl Bend for ListsOnePage {
    async fn list(&self, real: &Real, prefix: &str, cursor: Cursor) -> Result<Page> {
        let mut page = real.list(prefix, cursor).await?;
        page.names.truncate(100);
        page.next = None;
        Ok(page)
    }
}

#[derive(Debug, Default)]
struct ListsByPattern;

#[async_trait]
impl Bend for ListsByPattern {
    async fn list(&self, real: &Real, prefix: &str, cursor: Cursor) -> Result<Page> {
        real.list(prefix.trim_end_matches('*'), cursor).await
    }
}

#[derive(Debug, Default)]
struct WakesPlainNames;

#[async_trait]
impl Bend for WakesPlainNames {
    async fn acquire(&self, real: &Real, claim: &Claim) -> Result<Grant> {
        let mut acquiring = real.acquire(claim);
        match futures_util::poll!(&mut acquiring) {
            std::task::Poll::Ready(answer) => answer,
            std::task::Poll::Pending if claim.name.as_str().contains(' ') => {
                std::future::pending().await
            }
            std::task::Poll::Pending => acquiring.await,
        }
    }
}
