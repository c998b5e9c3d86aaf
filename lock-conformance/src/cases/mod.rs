//! The cases, one module for each rule of the contract; what several rules say about one kind of fault has
//! a module of its own, named after the fault.

mod bounds;
mod cancel;
mod capability;
mod clocks;
mod compaction;
mod entry;
mod exclusion;
mod expiry;
mod failover;
mod fencing;
mod halfway;
mod leaks;
mod loss;
mod names;
mod ownership;
mod prelude;
mod record;
mod seeded;
mod sessions;
mod validity;
mod waiting;

pub(crate) use self::entry::Entry;
use crate::case::Case;

const RULES: [&[Entry]; 12] = [
    exclusion::CASES,
    fencing::CASES,
    validity::CASES,
    loss::CASES,
    ownership::CASES,
    expiry::CASES,
    waiting::CASES,
    cancel::CASES,
    bounds::CASES,
    names::CASES,
    capability::CASES,
    leaks::CASES,
];

const COUNT: usize = {
    let (mut count, mut rule) = (0, 0);
    while rule < RULES.len() {
        count += RULES[rule].len();
        rule += 1;
    }
    count
};

/// Every case of the suite, with its code, rule by rule.
pub(crate) static ENTRIES: [Entry; COUNT] = {
    let mut all = [exclusion::CASES[0]; COUNT];
    let (mut next, mut rule) = (0, 0);
    while rule < RULES.len() {
        let mut case = 0;
        while case < RULES[rule].len() {
            all[next] = RULES[rule][case];
            next += 1;
            case += 1;
        }
        rule += 1;
    }
    all
};

/// Every case of the suite, rule by rule.
pub static CASES: &[Case] = &{
    let mut all = [exclusion::CASES[0].case; COUNT];
    let (mut next, mut rule) = (0, 0);
    while rule < RULES.len() {
        let mut case = 0;
        while case < RULES[rule].len() {
            all[next] = RULES[rule][case].case;
            next += 1;
            case += 1;
        }
        rule += 1;
    }
    all
};

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn identifiers_and_names_are_unique() {
        let ids: BTreeSet<_> = CASES.iter().map(|case| case.id).collect();
        let names: BTreeSet<_> = CASES.iter().map(|case| case.name).collect();
        assert_eq!((ids.len(), names.len()), (COUNT, COUNT));
    }

    #[test]
    fn every_rule_has_cases_under_its_own_number() {
        for (rule, cases) in (1..).zip(RULES) {
            assert!(cases.len() >= 4, "R{rule} has {} cases", cases.len());
            for Entry { case, .. } in cases {
                assert_eq!(case.rule(), format!("R{rule}"), "{}", case.title());
            }
        }
    }
}
