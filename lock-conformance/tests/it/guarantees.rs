//! docs/guarantees.md names every case; no document names one that is not there.

use std::collections::BTreeSet;

use lock_conformance::CASES;

#[test]
fn guarantees_name_exactly_the_cases_there_are() {
    let named = named(include_str!("../../../docs/guarantees.md"));
    let there: BTreeSet<&str> = CASES.iter().map(|case| case.id).collect();
    let missing: Vec<_> = there.difference(&named).collect();
    let unknown: Vec<_> = named.difference(&there).collect();
    assert!(missing.is_empty(), "cases without a claim: {missing:?}");
    assert!(unknown.is_empty(), "claims without a case: {unknown:?}");
}

#[test]
fn advice_to_authors_names_cases_there_are() {
    let named = named(include_str!("../../../docs/writing-a-backend.md"));
    let there: BTreeSet<&str> = CASES.iter().map(|case| case.id).collect();
    let unknown: Vec<_> = named.difference(&there).collect();
    assert!(named.len() > 50 && unknown.is_empty(), "{unknown:?}");
}

/// Every word of the text that is a case's number.
fn named(text: &str) -> BTreeSet<&str> {
    let is_id = |word: &&str| {
        let digits =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        word.strip_prefix('R')
            .and_then(|word| word.split_once('.'))
            .is_some_and(|(rule, number)| digits(rule) && digits(number))
    };
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '.')
        .map(|word| word.trim_end_matches('.'))
        .filter(is_id)
        .collect()
}
