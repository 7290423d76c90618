//! The plugins of drivers of claimed devices. A driver has several while it is being replaced, each at a socket of its own: the newest that is there
//! serves, and the one before it again when that goes. Pure.

use std::collections::BTreeMap;

use csi::dra::Plugin;
use tokio::time::Instant;

#[derive(Debug)]
struct Instance {
    plugin: Plugin,
    /// Number of its socket: the next one has a greater one.
    socket: u64,
    is_connected: bool,
}

/// Those that are registered, by driver.
#[derive(Debug, Default)]
pub(super) struct Instances {
    known: BTreeMap<String, Vec<Instance>>,
    /// Drivers of which no plugin is there, and since when. One that has never registered is none of them.
    away: BTreeMap<String, Instant>,
}

impl Instances {
    /// A plugin has made itself known. Whether its driver is away from now on: nobody knows yet whether it can be reached.
    pub(super) fn insert(&mut self, driver: &str, plugin: Plugin, socket: u64, now: Instant) -> bool {
        let all = self.known.entry(driver.to_owned()).or_default();
        // It may make itself known once more, when it could not be told that it is taken.
        all.retain(|instance| instance.socket != socket);
        all.push(Instance { plugin, socket, is_connected: false });
        self.settle(driver, now)
    }

    /// A plugin is there, or is there no more. Whether its driver is away from now on.
    pub(super) fn connected(&mut self, driver: &str, socket: u64, is_connected: bool, now: Instant) -> bool {
        let mut all = self.known.get_mut(driver).into_iter().flatten();
        let Some(instance) = all.find(|instance| instance.socket == socket) else { return false };
        instance.is_connected = is_connected;
        self.settle(driver, now)
    }

    /// A plugin has gone. Whether its driver is away from now on.
    pub(super) fn remove(&mut self, driver: &str, socket: u64, now: Instant) -> bool {
        let Some(all) = self.known.get_mut(driver) else { return false };
        all.retain(|instance| instance.socket != socket);
        if all.is_empty() {
            self.known.remove(driver);
        }
        self.settle(driver, now)
    }

    fn settle(&mut self, driver: &str, now: Instant) -> bool {
        if self.known.get(driver).is_some_and(|all| all.iter().any(|instance| instance.is_connected)) {
            self.away.remove(driver);
            return false;
        }
        let is_new = !self.away.contains_key(driver);
        self.away.entry(driver.to_owned()).or_insert(now);
        is_new
    }

    /// Who is asked: the newest that is there, otherwise the newest.
    pub(super) fn serving(&self, driver: &str) -> Option<Plugin> {
        let all = self.known.get(driver)?;
        let there = all.iter().rev().find(|instance| instance.is_connected);
        there.or_else(|| all.last()).map(|instance| instance.plugin.clone())
    }

    /// Whether the driver has a plugin, there or not.
    pub(super) fn is_registered(&self, driver: &str) -> bool {
        self.known.contains_key(driver)
    }

    /// Since when no plugin of the driver is there; none while one is.
    pub(super) fn away_since(&self, driver: &str) -> Option<Instant> {
        self.away.get(driver).copied()
    }

    /// What a driver has is withdrawn that was away since then: it is away anew when something happens to it the next time.
    pub(super) fn withdrawn(&mut self, driver: &str, since: Instant) {
        if self.away.get(driver) == Some(&since) {
            self.away.remove(driver);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use csi::dra::Version;
    use grpc::Endpoint;

    use super::*;

    fn plugin(socket: u64) -> Plugin {
        Plugin::new(Endpoint::new(&format!("/{socket}.sock")), Version::V1)
    }

    /// A driver's DaemonSet with `maxSurge` runs two plugins at a time; either may be the one that goes.
    #[test]
    fn the_newest_that_is_there_serves() {
        let (mut all, now) = (Instances::default(), Instant::now());
        let serves = |all: &Instances, expected: Option<u64>| assert_eq!(all.serving("d"), expected.map(plugin));
        serves(&all, None);
        assert!(all.insert("d", plugin(1), 1, now));
        serves(&all, Some(1));
        assert!(!all.connected("d", 1, true, now));
        assert!(!all.insert("d", plugin(2), 2, now));
        serves(&all, Some(1));
        assert!(!all.connected("d", 2, true, now));
        serves(&all, Some(2));
        // The new one crashes: its file is there still.
        assert!(!all.connected("d", 2, false, now));
        serves(&all, Some(1));
        assert!(!all.remove("d", 2, now));
        serves(&all, Some(1));
        // Another new one, which stays.
        assert!(!all.insert("d", plugin(3), 3, now) && !all.connected("d", 3, true, now));
        assert!(!all.remove("d", 1, now));
        serves(&all, Some(3));
        assert!(all.remove("d", 3, now) && !all.remove("d", 3, now));
        serves(&all, None);
    }

    /// The slices of a driver are withdrawn once it has been away for a time without a break, however often it goes.
    #[test]
    fn a_driver_is_away_while_none_is_there() {
        let (mut all, now) = (Instances::default(), Instant::now());
        let at = |seconds: u64| now + Duration::from_secs(seconds);
        assert_eq!(all.away_since("d"), None);
        assert!(all.insert("d", plugin(1), 1, at(0)));
        assert_eq!(all.away_since("d"), Some(at(0)));
        assert!(!all.connected("d", 1, true, at(1)));
        assert_eq!(all.away_since("d"), None);
        assert!(all.connected("d", 1, false, at(10)), "killed");
        assert!(!all.insert("d", plugin(2), 2, at(12)) && !all.remove("d", 1, at(13)), "it is seen to already");
        assert_eq!(all.away_since("d"), Some(at(10)));
        assert!(!all.connected("d", 2, true, at(20)) && all.connected("d", 2, false, at(30)));
        assert_eq!(all.away_since("d"), Some(at(30)));
        all.withdrawn("d", at(10));
        assert_eq!(all.away_since("d"), Some(at(30)), "it was there since");
        all.withdrawn("d", at(30));
        assert_eq!(all.away_since("d"), None);
        assert!(all.remove("d", 2, at(70)), "its slices may be there again");
        all.withdrawn("d", at(70));
        assert!(all.away.is_empty() && all.known.is_empty());
        assert!(!all.connected("d", 2, false, at(80)) && all.away.is_empty(), "who is gone says nothing");
    }
}
