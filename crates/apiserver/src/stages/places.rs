//! Places that users take as long as something of theirs lasts: so many at once, and so many of one user.

use std::collections::HashMap;
use std::sync::Arc;

use base::budgets::Meter;
use parking_lot::Mutex;

/// Places of one sort.
pub(crate) struct Places {
    all: usize,
    of_user: usize,
    taken: Mutex<Taken>,
    meter: Meter,
}

#[derive(Default)]
struct Taken {
    all: usize,
    users: HashMap<String, usize>,
}

/// A place, free again when it is dropped.
pub(crate) struct Place {
    places: Arc<Places>,
    user: String,
}

impl Places {
    /// So many places in all, and of each user at most. The budget has this name in the metrics, with the second number as its limit.
    pub(crate) fn new(budget: &'static str, all: usize, of_user: usize) -> Arc<Self> {
        Arc::new(Self { all, of_user, taken: Mutex::default(), meter: Meter::new(budget, of_user) })
    }

    /// One more place of a user; none when there are too many.
    pub(crate) fn take(self: &Arc<Self>, user: &str) -> Option<Place> {
        let mut taken = self.taken.lock();
        let own = taken.users.get(user).copied().unwrap_or_default();
        if taken.all >= self.all || own >= self.of_user {
            self.meter.refused();
            return None;
        }
        taken.all += 1;
        taken.users.insert(user.to_owned(), own + 1);
        self.meter.taken();
        Some(Place { places: self.clone(), user: user.to_owned() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock();
        taken.all -= 1;
        if let Some(own) = taken.users.get_mut(&self.user) {
            *own -= 1;
            if *own == 0 {
                taken.users.remove(&self.user);
            }
        }
        self.places.meter.left();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_user_has_so_many_and_all_have_so_many() {
        let places = Places::new("test_places", 5, 3);
        let take = |user: &str, count: usize| (0..count).map_while(|_| places.take(user)).collect::<Vec<_>>();
        let janes = take("jane", 10);
        assert_eq!(janes.len(), 3);
        let joes = take("joe", 10);
        assert_eq!((joes.len(), take("ann", 1).len()), (2, 0));
        drop(janes);
        assert_eq!(take("ann", 1).len(), 1);
        assert_eq!(take("jane", 10).len(), 3);
        drop(joes);
        assert!(places.taken.lock().users.is_empty());
        assert_eq!(places.taken.lock().all, 0);
    }
}
