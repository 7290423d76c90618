//! Orders that came to nothing, or whose end nobody saw. They are kept in the Secret of the account, since public issuers count
//! failures of an hour: a server that starts again and again asks no more often than one that runs. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use client::Key;
use k8s_openapi::ByteString;
use serde::{Deserialize, Serialize};

use super::digest;

/// How long a failed order waits for the next one, doubling.
const RETRY: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));
/// What the keys begin with.
const PREFIX: &str = "orders-";
/// Certificates whose orders are kept for one account, some 100 bytes each.
const MOST: usize = 1000;

/// What stands in the Secret of an account.
pub(super) type Entries = BTreeMap<String, ByteString>;

/// The orders of one certificate, one after the other, without one that succeeded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Attempts {
    /// Digest of the names that were ordered: others have not failed.
    names: String,
    count: u32,
    /// When the next one may begin, in seconds since 1970.
    next: u64,
}

impl Attempts {
    /// With one more, which begins now.
    pub(super) fn after(before: Option<&Self>, names: &BTreeSet<String>, now: SystemTime) -> Self {
        let names = digest_of(names);
        let count = before.filter(|before| before.names == names).map_or(0, |before| before.count).saturating_add(1);
        let attempts = Self { names, count, next: 0 };
        Self { next: seconds(now).saturating_add(attempts.pause().as_secs()), ..attempts }
    }

    /// The pause after the last one.
    pub(super) fn pause(&self) -> Duration {
        let doubled = 2u32.saturating_pow(self.count.saturating_sub(1));
        RETRY.0.saturating_mul(doubled).min(RETRY.1)
    }

    /// How long an order of these names has to wait. No longer than the pause, also after the clock was set back.
    pub(super) fn wait(&self, names: &BTreeSet<String>, now: SystemTime) -> Duration {
        if self.names != digest_of(names) {
            return Duration::ZERO;
        }
        Duration::from_secs(self.next.saturating_sub(seconds(now))).min(self.pause())
    }
}

/// The key of the attempts for a Secret, whose name may be longer than a key.
pub(super) fn entry(secret: &Key) -> String {
    format!("{PREFIX}{}", digest(&secret.to_string()))
}

/// The attempts for a Secret. What cannot be read is none, and is replaced.
pub(super) fn noted(entries: &Entries, secret: &Key) -> Option<Attempts> {
    entries.get(&entry(secret)).and_then(read)
}

/// Keys of attempts that may go, so that there is room for one more: those that would no longer have anybody wait as long again, and of too
/// many those that end first.
pub(super) fn surplus(entries: &Entries, now: SystemTime) -> Vec<String> {
    let noted = entries.iter().filter(|(key, _)| key.starts_with(PREFIX));
    let mut by_end: Vec<_> = noted.map(|(key, text)| (read(text).map_or(0, |attempts| attempts.next), key)).collect();
    by_end.sort();
    let outdated = by_end.partition_point(|(next, _)| next.saturating_add(RETRY.1.as_secs()) < seconds(now));
    let surplus = outdated.max((by_end.len() + 1).saturating_sub(MOST));
    by_end.into_iter().take(surplus).map(|(_, key)| key.clone()).collect()
}

fn read(text: &ByteString) -> Option<Attempts> {
    serde_json::from_slice(&text.0).ok()
}

fn digest_of(names: &BTreeSet<String>) -> String {
    digest(&names.iter().cloned().collect::<Vec<_>>().join(" "))
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn pauses_double_until_other_names_are_ordered() {
        let names = |all: &[&str]| all.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let at = |second: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        let (both, one) = (names(&["a.example", "b.example"]), names(&["a.example"]));
        let mut attempts = None;
        for pause in [60, 120, 240, 480, 960, 1920, 3600, 3600] {
            let next = Attempts::after(attempts.as_ref(), &both, at(1000));
            assert_eq!(next.wait(&both, at(1000)).as_secs(), pause);
            attempts = Some(next);
        }
        let attempts = attempts.unwrap();
        let check = |names: &BTreeSet<String>, now: u64, expected: u64| {
            assert_eq!(attempts.wait(names, at(now)).as_secs(), expected, "{names:?} {now}");
        };
        check(&both, 1600, 3000);
        check(&both, 4600, 0);
        check(&both, 9000, 0);
        check(&both, 0, 3600);
        check(&one, 1000, 0);
        assert_eq!(Attempts::after(Some(&attempts), &one, at(1000)).wait(&one, at(1000)).as_secs(), 60);
        let many = Attempts { count: u32::MAX, ..attempts };
        assert_eq!(Attempts::after(Some(&many), &both, at(0)).pause().as_secs(), 3600);
    }

    #[test]
    fn what_is_kept_has_a_bound() {
        let names = BTreeSet::from(["a.example".to_owned()]);
        let at = |second: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        let noted = |second: u64| {
            let text = serde_json::to_vec(&Attempts::after(None, &names, at(second))).unwrap();
            assert!(text.len() < 100, "{}", text.len());
            ByteString(text)
        };
        let check = |entries: &[(&str, u64)], now: u64, expected: &[&str]| {
            let entries = entries.iter().map(|(name, second)| (format!("orders-{name}"), noted(*second)));
            let account = ("account.json".to_owned(), ByteString(b"{}".to_vec()));
            assert_eq!(surplus(&entries.chain([account]).collect(), at(now)), expected);
        };
        check(&[("a", 10_000), ("b", 20_000)], 13_660, &[]);
        check(&[("a", 10_000), ("b", 20_000)], 13_661, &["orders-a"]);
        let many: Entries = (0..MOST as u64).map(|n| (format!("orders-{n}"), noted(50_000 - n))).collect();
        assert_eq!(surplus(&many, at(50_000)), [format!("orders-{}", MOST - 1)]);
        let (shop, other) = (Key::namespaced("a", "shop"), Key::namespaced("a", "other"));
        let entries = Entries::from([(entry(&shop), noted(1)), (entry(&other), ByteString(b"?".to_vec()))]);
        assert_eq!(super::noted(&entries, &shop), Some(Attempts::after(None, &names, at(1))));
        assert_eq!(super::noted(&entries, &other), None);
        assert_eq!(surplus(&entries, at(60)), Vec::<String>::new());
    }

    #[test]
    fn entries_are_keys_of_secrets() {
        let long = Key::namespaced("n".repeat(63), "s".repeat(253));
        assert!(entry(&long).len() < 253);
        assert_ne!(entry(&Key::namespaced("a", "b")), entry(&Key::namespaced("a", "c")));
    }
}
