//! What routes may come to. Each match of a rule is served under each host of each listener that takes the route, so that a small object can come to
//! thousands of them.

use std::collections::HashMap;

use super::created;
use super::route::Read;
use super::rules::Unsupported;

/// Most matches of all routes, each counted under each of its hosts at each listener.
pub(super) const MOST: usize = 50_000;
/// Most of the routes of one namespace.
pub(super) const OF_NAMESPACE: usize = MOST / 4;

const TOO_MANY: Unsupported = Unsupported::Part(
    "number of matches, under each host of each listener, for which there is no room beside those of this namespace and of others,",
);

/// Refuses the routes for which there is no room beside older ones.
pub(super) fn bound(routes: &mut [Read<'_>]) {
    let mut by_age: Vec<usize> = (0..routes.len()).collect();
    by_age.sort_by_key(|at| {
        let planner = &routes[*at].planner;
        (created(&planner.route.metadata), planner.key, planner.kind)
    });
    let (mut all, mut of_namespaces) = (0, HashMap::<&str, usize>::new());
    for at in by_age {
        let size = routes[at].size();
        let own = of_namespaces.entry(routes[at].planner.key.ns()).or_default();
        if size > OF_NAMESPACE - *own || size > MOST - all {
            routes[at].rules = Err(TOO_MANY);
        } else {
            *own += size;
            all += size;
        }
    }
}
