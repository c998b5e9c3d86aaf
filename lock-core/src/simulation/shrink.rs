//! Cutting a schedule that fails down to what it takes to fail.

use super::plan::{Plan, Weather};

/// The smallest schedule that still `fails`, as far as leaving out one part after another finds it.
pub(super) fn shrink(plan: Plan, fails: impl Fn(&Plan) -> bool) -> Plan {
    let mut smallest = plan;
    loop {
        let smaller = candidates(&smallest).find(|candidate| fails(candidate));
        match smaller {
            Some(smaller) => smallest = smaller,
            None => return smallest,
        }
    }
}

/// Every schedule that has one part less.
fn candidates(plan: &Plan) -> impl Iterator<Item = Plan> + '_ {
    let with = move |change: &dyn Fn(&mut Plan)| {
        let mut changed = plan.clone();
        change(&mut changed);
        changed
    };
    let users = (0..plan.users.len()).map(move |user| with(&|plan| drop(plan.users.remove(user))));
    let faults = (0..plan.faults.len()).map(move |fault| {
        with(&|plan| {
            plan.faults.remove(fault);
        })
    });
    let places = plan.users.iter().enumerate();
    let places =
        places.flat_map(|(user, users)| (0..users.visits.len()).map(move |visit| (user, visit)));
    let visits = places
        .clone()
        .filter(|(user, _)| plan.users[*user].visits.len() > 1);
    let visits =
        visits.map(move |(user, visit)| with(&|plan| drop(plan.users[user].visits.remove(visit))));
    let patient =
        places.filter(|(user, visit)| plan.users[*user].visits[*visit].dropped_after.is_some());
    let patient = patient.map(move |(user, visit)| {
        with(&|plan| plan.users[user].visits[visit].dropped_after = None)
    });
    let Weather { lost, late, copied } = plan.weather;
    let weather = [
        Weather {
            lost: 0,
            ..plan.weather
        },
        Weather {
            late: 0,
            ..plan.weather
        },
        Weather {
            copied: 0,
            ..plan.weather
        },
    ];
    let bad = [lost, late, copied]
        .into_iter()
        .zip(weather)
        .filter(|(percent, _)| *percent > 0);
    let weather = bad.map(move |(_, better)| with(&|plan| plan.weather = better));
    users
        .chain(faults)
        .chain(visits)
        .chain(weather)
        .chain(patient)
}
