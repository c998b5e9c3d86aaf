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
    let users = (0..plan.users.len()).map(|user| {
        with(plan, |plan| {
            plan.users.remove(user);
        })
    });
    let faults = (0..plan.faults.len()).map(|fault| {
        with(plan, |plan| {
            plan.faults.remove(fault);
        })
    });
    let places = plan.users.iter().enumerate();
    let places =
        places.flat_map(|(user, users)| (0..users.visits.len()).map(move |visit| (user, visit)));
    let visits = places
        .clone()
        .filter(|(user, _)| plan.users[*user].visits.len() > 1);
    let visits = visits.map(|(user, visit)| {
        with(plan, |plan| {
            plan.users[user].visits.remove(visit);
        })
    });
    let dropped =
        places.filter(|(user, visit)| plan.users[*user].visits[*visit].dropped_after.is_some());
    let patient = dropped.map(|(user, visit)| {
        with(plan, |plan| {
            plan.users[user].visits[visit].dropped_after = None
        })
    });
    let better = [
        |weather: &mut Weather| weather.lost = 0,
        |weather: &mut Weather| weather.late = 0,
        |weather: &mut Weather| weather.copied = 0,
    ];
    let weather = better
        .into_iter()
        .map(|better| with(plan, |plan| better(&mut plan.weather)));
    let weather = weather.filter(|better| better.weather != plan.weather);
    users
        .chain(faults)
        .chain(visits)
        .chain(weather)
        .chain(patient)
}

fn with(plan: &Plan, change: impl FnOnce(&mut Plan)) -> Plan {
    let mut changed = plan.clone();
    change(&mut changed);
    changed
}
