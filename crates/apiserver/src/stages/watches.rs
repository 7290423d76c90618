//! Watches that are open at once, by user: each costs memory for as long as its client wants.

use std::collections::HashMap;
use std::sync::Arc;

use apimachinery::Status;
use base::budgets::Meter;
use http::request::Parts;
use parking_lot::Mutex;
use registry::User;

use super::InProcess;

/// Of one user. An informer needs one for each kind that it is about; a node one for each object that its pods refer to.
const OF_USER: usize = 2_000;

/// All open watches.
pub(crate) struct Watches {
    users: Mutex<HashMap<String, usize>>,
    meter: Meter,
}

impl Default for Watches {
    fn default() -> Self {
        Self { users: Mutex::default(), meter: Meter::new("watches_of_user", OF_USER) }
    }
}

/// The place of one watch, free again when it is dropped.
pub(crate) struct Place {
    watches: Arc<Watches>,
    user: String,
}

impl Watches {
    /// A place for one more watch; none for components of this process, which are not counted. 429 for users who have too many.
    pub(crate) fn open(self: &Arc<Self>, parts: &Parts, user: &User) -> Result<Option<Place>, Status> {
        if parts.extensions.get::<InProcess>().is_some() {
            return Ok(None);
        }
        let mut users = self.users.lock();
        let count = users.entry(user.name.clone()).or_default();
        if *count >= OF_USER {
            self.meter.refused();
            return Err(Status::too_many_requests("Too many watches, please try again later.", 1));
        }
        *count += 1;
        self.meter.taken();
        Ok(Some(Place { watches: self.clone(), user: user.name.clone() }))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut users = self.watches.users.lock();
        if let Some(count) = users.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                users.remove(&self.user);
            }
        }
        self.watches.meter.left();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_user_has_so_many() {
        let watches = Arc::new(Watches::default());
        let (parts, ()) = http::Request::new(()).into_parts();
        let (jane, joe) = (crate::authn::user("jane", Vec::new()), crate::authn::user("joe", Vec::new()));
        let held: Vec<Place> = (0..OF_USER).map(|_| watches.open(&parts, &jane).unwrap().unwrap()).collect();
        assert_eq!(watches.open(&parts, &jane).map(drop).unwrap_err().code, 429);
        assert!(watches.open(&parts, &joe).is_ok());
        drop(held);
        assert!(watches.open(&parts, &jane).is_ok());
        assert!(watches.users.lock().is_empty());
    }
}
