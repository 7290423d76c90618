//! What others make of a version that is served: its part of discovery and of OpenAPI documents. It is made when it is first asked for,
//! and goes with the version, so that a change of one definition costs what follows from that one.

use std::any::Any;
use std::sync::Arc;

use parking_lot::Mutex;

/// Values, one of each type.
#[derive(Default)]
pub struct Derived(Mutex<Vec<Arc<dyn Any + Send + Sync>>>);

impl Derived {
    /// The value of that type, made if it is not there.
    pub fn get<T: Any + Send + Sync>(&self, make: impl FnOnce() -> T) -> Arc<T> {
        let find = |all: &[Arc<dyn Any + Send + Sync>]| all.iter().find_map(|one| one.clone().downcast::<T>().ok());
        if let Some(known) = find(&self.0.lock()) {
            return known;
        }
        // Making it may take long, and may ask for others. Of two that are made at once the first stays.
        let made = Arc::new(make());
        let mut all = self.0.lock();
        find(&all).unwrap_or_else(|| {
            all.push(made.clone());
            made
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_made_once() {
        let derived = Derived::default();
        assert_eq!((*derived.get(|| 1_u32), *derived.get(|| "a")), (1, "a"));
        assert_eq!((*derived.get(|| 2_u32), *derived.get(|| "b")), (1, "a"));
        assert_eq!(*derived.get(|| u64::from(*derived.get(|| 3_u32)) + 1), 2, "one may need another");
    }
}
