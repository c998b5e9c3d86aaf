//! R10: names are exact.

use lock_core::{Cursor, LockName};

use super::prelude::*;
use crate::stand::Client;

pub(super) const CASES: &[Entry] = &[
    case!("R10.01", names_that_differ_in_case_are_different_locks),
    case!("R10.02", unicode_forms_of_a_name_are_different_locks),
    case!("R10.03", slashes_and_dots_are_not_paths),
    case!(
        "R10.04",
        longest_names_with_a_common_prefix_are_different_locks
    ),
    case!("R10.05", braces_are_no_hash_tags),
    case!("R10.06", glob_characters_are_only_characters),
    case!("R10.07", spaces_quotes_and_separators_are_only_characters),
    case!("R10.08", unusable_names_are_refused_with_a_reason),
    case!("R10.09", looking_shows_only_the_lock_that_was_named),
    case!(
        "R10.10",
        listing_shows_every_name_in_use_exactly,
        needs(&[LIST])
    ),
    case!("R10.11", prefix_of_a_listing_is_no_pattern, needs(&[LIST])),
    case!("R10.12", waiting_and_hand_off_work_for_every_name),
    case!(
        "R10.13",
        something_else_in_the_way_is_an_error,
        needs(&[Need::Fault(Fault::Obstruct)]),
    ),
];

/// Holds all of them side by side, through two clients, and gives them up again.
async fn all_different(s: &Stand, names: &[String]) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    let mut guards = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let client = if index % 2 == 0 { &a } else { &b };
        let guard = client.attempt(name).await?;
        let guard = some(
            guard,
            &format!("{name:?} is taken as if it were another name"),
        )?;
        guards.push((client, guard));
    }
    for name in names {
        ensure(
            b.attempt(name).await?.is_none(),
            format!("{name:?} is not held"),
        )?;
        let state = a.inspect(name).await?;
        ensure_eq(state.name.as_str(), name.as_str(), "the name that is shown")?;
        ensure_eq(state.holders.len(), 1, &format!("holders of {name:?}"))?;
    }
    // Giving one up must not free another.
    while let Some((client, guard)) = guards.pop() {
        let name = guard.name().as_str().to_owned();
        released_clean(client.give_up(guard).await?)?;
        ensure(
            a.inspect(&name).await?.holders.is_empty(),
            format!("{name:?} is still held"),
        )?;
        for (_, other) in &guards {
            let state = a.inspect(other.name().as_str()).await?;
            ensure_eq(
                state.holders.len(),
                1,
                &format!(
                    "holders of {:?} after the release of {name:?}",
                    other.name()
                ),
            )?;
        }
    }
    Ok(())
}

/// Names of this case that end like this.
fn named(s: &Stand, endings: &[&str]) -> Vec<String> {
    endings.iter().map(|ending| s.name(ending)).collect()
}

async fn names_that_differ_in_case_are_different_locks(s: Stand) -> Check {
    all_different(
        &s,
        &named(
            &s,
            &["order", "Order", "ORDER", "ordeR", "ſtraße", "STRASSE"],
        ),
    )
    .await
}

async fn unicode_forms_of_a_name_are_different_locks(s: Stand) -> Check {
    // Composed and decomposed, compatibility forms, look-alikes, zero width, beyond the BMP.
    all_different(
        &s,
        &named(
            &s,
            &[
                "caf\u{e9}",
                "cafe\u{301}",
                "\u{fb01}sh",
                "fish",
                "\u{212b}",
                "\u{c5}",
                "\u{410}",
                "A",
                "a\u{200b}b",
                "ab",
                "\u{1f512}",
                "\u{1f513}",
            ],
        ),
    )
    .await
}

async fn slashes_and_dots_are_not_paths(s: Stand) -> Check {
    all_different(
        &s,
        &named(
            &s,
            &[
                "a", "a/", "a/b", "a/b/", "a//b", "/a", "//a", "a/.", "a/..", "a/../a", "./a", ".",
                "..", "/", "\\a", "a\\b",
            ],
        ),
    )
    .await
}

async fn longest_names_with_a_common_prefix_are_different_locks(s: Stand) -> Check {
    let longest = s.capabilities().name_max;
    let start = s.name("");
    let mut names = Vec::new();
    for end in ["a", "b", "é"] {
        let fill = longest - start.len() - end.len();
        names.push(format!("{start}{}{end}", "x".repeat(fill)));
    }
    // And what they would be cut to.
    for length in [64, 128, 255, 256, 512, longest - 1] {
        if length > start.len() && length < longest {
            names.push(format!("{start}{}", "x".repeat(length - start.len())));
        }
    }
    all_different(&s, &names).await
}

async fn braces_are_no_hash_tags(s: Stand) -> Check {
    all_different(
        &s,
        &named(
            &s,
            &[
                "{a}", "a", "{a}b", "{a}{b}", "b{a}", "{}", "{", "}", "}{", "{{a}}", "{p00}",
                "{p01}",
            ],
        ),
    )
    .await
}

async fn glob_characters_are_only_characters(s: Stand) -> Check {
    all_different(
        &s,
        &named(
            &s,
            &[
                "*", "?", "[a]", "[a-z]", "a", "b", "**", "a*", "\\*", "[", "]", "^", "!",
            ],
        ),
    )
    .await
}

async fn spaces_quotes_and_separators_are_only_characters(s: Stand) -> Check {
    all_different(
        &s,
        &named(
            &s,
            &[
                " ", "  ", "a", " a", "a ", "a b", "\"a\"", "'a'", ":", "a:b", "a::b", ",", ";",
                "a;b", "%20", "%", "a%2fb", "a/b", "$", "#", "&", "|", "\u{a0}", "\u{2028}",
            ],
        ),
    )
    .await
}

async fn unusable_names_are_refused_with_a_reason(s: Stand) -> Check {
    let a = s.client().await?;
    let too_long = "x".repeat(LockName::MAX_BYTES + 1);
    let too_long_in_bytes = "é".repeat(LockName::MAX_BYTES / 2 + 1);
    let beyond_the_declared = "x".repeat(s.capabilities().name_max + 1);
    for (name, reason) in [
        ("", "empty"),
        (too_long.as_str(), "bytes"),
        (too_long_in_bytes.as_str(), "bytes"),
        (beyond_the_declared.as_str(), "bytes"),
        ("a\nb", "control"),
        ("\0", "control"),
        ("a\u{7f}", "control"),
        ("\u{85}", "control"),
    ] {
        let what = format!("the name {:?}", name.chars().take(10).collect::<String>());
        for refused in [
            a.mutex(name).try_acquire().await.map(drop),
            a.mutex(name).acquire().await.map(drop),
            a.mutex(name).acquire_within(ms(10)).await.map(drop),
        ] {
            let error = ensure_kind(refused, &[ErrorKind::Invalid], &what)?;
            ensure(
                error.to_string().contains(reason),
                format!("{what} is refused without the reason: {error}"),
            )?;
        }
        if name.len() != beyond_the_declared.len() || name.len() > LockName::MAX_BYTES {
            ensure_kind(a.inspect(name).await, &[ErrorKind::Invalid], &what)?;
        }
    }
    s.until_idle(&a).await
}

async fn looking_shows_only_the_lock_that_was_named(s: Stand) -> Check {
    let a = s.client().await?;
    let held = a.hold(&s.name("a")).await?;
    for other in ["a/", "A", "a*", "", "a/b", "aa"] {
        let state = a.inspect(s.name(other)).await?;
        ensure(
            state.holders.is_empty() && state.waiters.is_empty(),
            format!("{other:?} shows what belongs to another: {state:?}"),
        )?;
    }
    released_clean(a.give_up(held).await?)
}

/// Every name that a listing shows, page by page.
async fn listed(a: &Client, prefix: &str) -> Result<Vec<String>, Failure> {
    let mut names = Vec::new();
    let mut cursor = Cursor::default();
    for _ in 0..10_000 {
        let page = a.list(prefix, cursor).await?;
        names.extend(page.names.iter().map(|name| name.as_str().to_owned()));
        match page.next {
            Some(next) => cursor = next,
            None => {
                names.sort();
                names.dedup();
                return Ok(names);
            }
        }
    }
    Err(Failure::new("a listing without end"))
}

async fn listing_shows_every_name_in_use_exactly(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    let mut wanted = named(&s, &["a", "a/", "a/b", "{a}", "*", "é", " ", "%2f"]);
    wanted.extend((0..200).map(|label| s.name(&format!("many/{label}"))));
    let mut guards = Vec::new();
    for name in &wanted {
        guards.push(a.hold(name).await?);
    }
    wanted.sort();
    ensure_eq(
        listed(&b, &s.name("")).await?,
        wanted.clone(),
        "names in use",
    )?;
    let gone = guards.pop();
    let gone = some(gone, "there are guards")?;
    wanted.retain(|name| *name != gone.name().as_str());
    released_clean(a.give_up(gone).await?)?;
    ensure_eq(
        listed(&b, &s.name("")).await?,
        wanted,
        "names in use after a release",
    )
}

async fn prefix_of_a_listing_is_no_pattern(s: Stand) -> Check {
    let a = s.client().await?;
    let mut guards = Vec::new();
    for label in ["ab", "a*", "a?", "[a]", "a/b", "b"] {
        guards.push(a.hold(&s.name(label)).await?);
    }
    for (prefix, found) in [
        ("a", vec!["a*", "a/b", "a?", "ab"]),
        ("a*", vec!["a*"]),
        ("a?", vec!["a?"]),
        ("[a]", vec!["[a]"]),
        ("[", vec!["[a]"]),
        ("A", vec![]),
        ("?", vec![]),
        ("b", vec!["b"]),
    ] {
        let found = named(&s, &found);
        ensure_eq(
            listed(&a, &s.name(prefix)).await?,
            found,
            &format!("names that begin with {prefix:?}"),
        )?;
    }
    Ok(())
}

async fn waiting_and_hand_off_work_for_every_name(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    let longest = s.capabilities().name_max;
    let start = s.name("");
    let mut names = named(
        &s,
        &["{", "}", "a b", "\"", "é/\u{1f512}", "*?[", "%s\\n", "-1"],
    );
    names.push(format!("{start}{}", "y".repeat(longest - start.len())));
    for name in &names {
        let held = a.hold(name).await?;
        let waiting = tokio::spawn({
            let (b, name) = (b.clone(), name.clone());
            async move { Ok::<_, Failure>(b.hold(&name).await?) }
        });
        s.until_queued(&a, name, 1).await?;
        released_clean(a.give_up(held).await?)?;
        let guard = within(SOON, &format!("{name:?} is handed on"), joined(waiting)).await??;
        guard.renew().await?;
        released_clean(b.give_up(guard).await?)?;
    }
    Ok(())
}

async fn something_else_in_the_way_is_an_error(s: Stand) -> Check {
    let a = s.client().await?;
    let name = s.name("n");
    s.faults().obstruct(&name).await?;
    for _ in 0..2 {
        let wrong = &[ErrorKind::WrongType];
        ensure_kind(a.attempt(&name).await, wrong, "a try")?;
        ensure_kind(a.hold(&name).await, wrong, "a wait")?;
    }
    s.until_idle(&a).await?;
    let other = some(a.attempt(&s.name("other")).await?, "another name is free")?;
    released_clean(a.give_up(other).await?)
}
