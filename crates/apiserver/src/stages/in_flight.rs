//! Requests that are being answered at once (upstream's `--max-requests-inflight` and `--max-mutating-requests-inflight`).
//!
//! Reads and writes have places of their own. A part of them only the system gets: nodes, the cluster's own components, and the
//! leases by which workloads elect leaders. A user may take another place while fewer of their requests are in flight than twice the
//! places that are free: one user alone gets two thirds of what there is, many get equal parts, and there is always something left for
//! one more. API priority and fairness will take this place.

use std::collections::HashMap;
use std::sync::Arc;

use apimachinery::Status;
use base::budgets::Meter;
use http::Method;
use http::request::Parts;
use parking_lot::Mutex;
use registry::User;

use super::InProcess;
use crate::authn::MASTERS;
use crate::route::{Route, Target};

const READS: usize = 400;
const WRITES: usize = 200;

/// Which part of the places a request may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    System,
    /// Leases of workloads: who loses one stops to work.
    LeaderElection,
    Other,
}

const CLASSES: [Class; 3] = [Class::System, Class::LeaderElection, Class::Other];

impl Class {
    fn of(user: &User, route: &Route<'_>) -> Self {
        let is_in = |group: &str| user.groups.iter().any(|own| own == group);
        if is_in("system:nodes") || is_in("system:serviceaccounts:kube-system") || user.name.starts_with("system:kube-") {
            return Self::System;
        }
        match route {
            Route::Resource(Target { group: "coordination.k8s.io", plural: "leases", .. }) if is_in("system:serviceaccounts") => {
                Self::LeaderElection
            }
            _ => Self::Other,
        }
    }

    /// How many of `limit` places requests of this class and those below it may take.
    fn places(self, limit: usize) -> usize {
        match self {
            Self::System => limit,
            Self::LeaderElection => limit - limit / 8,
            Self::Other => limit - limit / 4,
        }
    }
}

/// Requests in flight, by user.
struct Pool {
    limit: usize,
    /// By class, in the order of [`CLASSES`].
    held: [usize; 3],
    users: HashMap<String, usize>,
}

impl Pool {
    fn new(limit: usize) -> Self {
        Self { limit, held: [0; 3], users: HashMap::new() }
    }

    #[cfg(test)]
    fn all(&self) -> usize {
        self.held.iter().sum()
    }

    /// Places that a class could take: there are any, and neither it nor one above it has used up its part.
    fn free(&self, class: Class) -> usize {
        let above = CLASSES.iter().enumerate().take(class as usize + 1);
        let left = above.map(|(at, above)| above.places(self.limit).saturating_sub(self.held[at..].iter().sum()));
        left.min().unwrap_or(0)
    }

    /// Takes a place, if the user may have one more.
    fn enter(&mut self, class: Class, user: &str) -> bool {
        let free = self.free(class);
        let own = self.users.get(user).copied().unwrap_or(0);
        if own >= 2 * free {
            return false;
        }
        self.held[class as usize] += 1;
        match self.users.get_mut(user) {
            Some(count) => *count += 1,
            None => drop(self.users.insert(user.to_owned(), 1)),
        }
        true
    }

    fn leave(&mut self, class: Class, user: &str) {
        self.held[class as usize] -= 1;
        if let Some(count) = self.users.get_mut(user) {
            *count -= 1;
            if *count == 0 {
                self.users.remove(user);
            }
        }
    }
}

/// All requests in flight.
pub(crate) struct InFlight {
    reads: (Mutex<Pool>, Meter),
    writes: (Mutex<Pool>, Meter),
}

impl Default for InFlight {
    fn default() -> Self {
        let pool = |name, limit| (Mutex::new(Pool::new(limit)), Meter::new(name, limit));
        Self { reads: pool("reads_in_flight", READS), writes: pool("writes_in_flight", WRITES) }
    }
}

/// The place of one request, free again when it is dropped.
pub(crate) struct Place {
    in_flight: Arc<InFlight>,
    writes: bool,
    class: Class,
    user: String,
}

impl InFlight {
    fn pool(&self, writes: bool) -> &(Mutex<Pool>, Meter) {
        if writes { &self.writes } else { &self.reads }
    }

    /// A place for a request; none for requests that need none. 429 when there is none for this user.
    pub(crate) fn enter(
        self: &Arc<Self>,
        parts: &Parts,
        user: &User,
        route: &Route<'_>,
        long_running: bool,
    ) -> Result<Option<Place>, Status> {
        let is_exempt = parts.extensions.get::<InProcess>().is_some() || user.groups.iter().any(|group| group == MASTERS);
        if long_running || is_exempt {
            return Ok(None);
        }
        let writes = !matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS);
        let (pool, meter) = self.pool(writes);
        let class = Class::of(user, route);
        if !pool.lock().enter(class, &user.name) {
            meter.refused();
            return Err(Status::too_many_requests("Too many requests, please try again later.", 1));
        }
        meter.taken();
        Ok(Some(Place { in_flight: self.clone(), writes, class, user: user.name.clone() }))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (pool, meter) = self.in_flight.pool(self.writes);
        pool.lock().leave(self.class, &self.user);
        meter.left();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many places a user gets.
    fn take(pool: &mut Pool, class: Class, user: &str) -> usize {
        std::iter::repeat_with(|| pool.enter(class, user)).take_while(|entered| *entered).count()
    }

    #[test]
    fn one_client_leaves_room_for_others() {
        let mut pool = Pool::new(400);
        assert_eq!(take(&mut pool, Class::Other, "hog"), 200);
        assert_eq!(take(&mut pool, Class::Other, "jane"), 67);
        assert!(take(&mut pool, Class::Other, "joe") > 10);
        assert!(take(&mut pool, Class::System, "node") > 60);
        pool.leave(Class::Other, "hog");
        assert!(!pool.enter(Class::Other, "hog"), "others come first");
        assert!(pool.enter(Class::Other, "new"));
    }

    #[test]
    fn the_system_has_its_share() {
        let mut pool = Pool::new(40);
        for (class, all) in [(Class::Other, 30), (Class::LeaderElection, 35), (Class::System, 40)] {
            let taken: usize = (0..100).map(|n| take(&mut pool, class, &format!("{class:?} {n}"))).sum();
            assert_eq!((taken > 0, pool.all()), (true, all));
        }
        // The other way around, what the system does beyond its share takes places from others, but never all.
        let mut pool = Pool::new(40);
        assert_eq!((take(&mut pool, Class::System, "s"), take(&mut pool, Class::Other, "u") > 0), (27, true));
    }

    #[test]
    fn classes() {
        let check = |user: &User, path: &str, expected: Class| {
            assert_eq!(Class::of(user, &crate::route::parse(path)), expected, "{} {path}", user.name);
        };
        let (pods, leases) = ("/api/v1/namespaces/n/pods", "/apis/coordination.k8s.io/v1/namespaces/n/leases/l");
        check(&crate::authn::service_account("n", "a"), pods, Class::Other);
        check(&crate::authn::service_account("n", "a"), leases, Class::LeaderElection);
        check(&crate::authn::user("jane", Vec::new()), leases, Class::Other);
        check(&crate::authn::service_account("kube-system", "a"), pods, Class::System);
        check(&crate::authn::user("system:node:n", vec!["system:nodes".into()]), pods, Class::System);
        check(&crate::authn::user("system:kube-scheduler", Vec::new()), pods, Class::System);
    }
}
