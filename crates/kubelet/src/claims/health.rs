//! How claimed devices are, as their drivers say from time to time, and as `allocatedResourcesStatus` of container statuses tells (KEP-4680).
//!
//! What a driver has said counts for as long as it says, thirty seconds otherwise; then, and when its list ends, nobody knows.

use std::collections::BTreeMap;
use std::time::Duration;

use csi::dra::{DeviceHealth, HealthStatus, Plugin};
use grpc::{Code, Error};
use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus, ResourceClaim, ResourceHealth, ResourceStatus};
use pods::claims as rules;
use tokio::time::Instant;

use super::Claims;
use super::records::Record;
use crate::context::Context;
use crate::spec::Model;

/// How long a finding counts of which the driver does not say that.
const COUNTS: Duration = Duration::from_secs(30);
/// Delay before a driver is asked again whose list has ended, doubling up to the second value.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How long a finding counts at most: a driver may say any number of seconds.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
/// Most devices of a plugin that are remembered.
const MOST: usize = 10_000;
/// Most bytes of what a driver says of a device: it is told by the status of each pod that has it, which has a bound itself.
const MESSAGE: usize = 1024;

/// What a driver has found.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    health: HealthStatus,
    message: String,
    until: Instant,
}

/// A plugin by its driver and the number of its socket, which is greater than those of the plugins before it.
type Source = (String, u64);

/// What drivers have found of their devices: by plugin, then by pool and name.
#[derive(Debug, Default)]
pub(super) struct Findings(BTreeMap<Source, BTreeMap<(String, String), Finding>>);

impl Findings {
    /// A plugin has told of its devices. Says whether any is otherwise than before.
    fn take(&mut self, driver: &str, socket: u64, devices: Vec<DeviceHealth>, now: Instant) -> bool {
        let found = self.0.entry((driver.to_owned(), socket)).or_default();
        if found.len() + devices.len() > MOST {
            found.retain(|_, finding| finding.until > now);
        }
        let mut is_news = false;
        for one in devices {
            let health = one.health();
            let until = now + counts(one.health_check_timeout_seconds);
            let Some(device) = one.device else { continue };
            let key = (device.pool_name, device.device_name);
            if found.len() >= MOST && !found.contains_key(&key) {
                continue;
            }
            let finding = Finding { health, message: cut(one.message), until };
            let same = |before: &Finding| {
                (before.health, &before.message, before.until > now) == (finding.health, &finding.message, true)
            };
            is_news |= !found.get(&key).is_some_and(same);
            found.insert(key, finding);
        }
        is_news
    }

    /// When the next finding of a plugin ends to count.
    fn next_end(&self, driver: &str, socket: u64, now: Instant) -> Option<Instant> {
        self.0.get(&(driver.to_owned(), socket))?.values().map(|finding| finding.until).filter(|until| *until > now).min()
    }

    /// A plugin says nothing of its driver's devices any more.
    fn forget(&mut self, driver: &str, socket: u64) -> bool {
        self.0.remove(&(driver.to_owned(), socket)).is_some()
    }

    /// What the newest plugin says that says something.
    fn of(&self, driver: &str, pool: &str, device: &str, now: Instant) -> (&'static str, Option<String>) {
        let (plugins, key) = ((driver.to_owned(), 0)..=(driver.to_owned(), u64::MAX), (pool.to_owned(), device.to_owned()));
        let mut found = self.0.range(plugins).rev().filter_map(|(_, found)| found.get(&key));
        match found.find(|finding| finding.until > now) {
            Some(Finding { health: HealthStatus::Healthy, message, .. }) => ("Healthy", said(message)),
            Some(Finding { health: HealthStatus::Unhealthy, message, .. }) => ("Unhealthy", said(message)),
            Some(Finding { message, .. }) => ("Unknown", said(message)),
            None => ("Unknown", None),
        }
    }
}

/// For how long a finding counts.
fn counts(seconds: i64) -> Duration {
    let seconds = u64::try_from(seconds).ok().filter(|seconds| *seconds > 0);
    seconds.map_or(COUNTS, Duration::from_secs).min(LONGEST)
}

fn cut(mut message: String) -> String {
    message.truncate(message.floor_char_boundary(MESSAGE));
    message
}

fn said(message: &str) -> Option<String> {
    Some(message.to_owned()).filter(|message| !message.is_empty())
}

/// Follows what a plugin finds, until it says that it looks at nothing.
pub async fn follow(cx: &Context, name: &str, plugin: &Plugin, socket: u64) {
    let mut delay = RETRY.0;
    loop {
        let ended = read(cx, (name, socket), plugin, &mut delay).await;
        cx.claims.forget_findings(name, socket);
        match ended {
            Err(error) if error.code == Code::Unimplemented => return,
            Err(error) => tracing::debug!(driver = name, %error, "a driver does not say how its devices are any more"),
            Ok(()) => {}
        }
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(RETRY.1);
    }
}

async fn read(cx: &Context, (name, socket): (&str, u64), plugin: &Plugin, delay: &mut Duration) -> Result<(), Error> {
    let mut lists = plugin.watch_health().await?;
    loop {
        let end = cx.claims.findings.lock().next_end(name, socket, Instant::now());
        let ends = async {
            match end {
                Some(end) => tokio::time::sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        let is_news = tokio::select! {
            list = lists.next() => {
                let Some(list) = list? else { return Ok(()) };
                *delay = RETRY.0;
                cx.claims.findings.lock().take(name, socket, list.devices, Instant::now())
            }
            () = ends => true,
        };
        if is_news {
            cx.claims.news.send_replace(());
        }
    }
}

impl Claims {
    /// A plugin says no more how the devices of its driver are.
    pub(super) fn forget_findings(&self, driver: &str, socket: u64) {
        if self.findings.lock().forget(driver, socket) {
            self.news.send_replace(());
        }
    }

    /// Says in a pod's status how the claimed devices of its containers are. What is told of a claim that has been given back stays as in `old`.
    pub fn tell_health(&self, model: &Model, status: &mut PodStatus, old: &PodStatus) {
        let lists = [
            (&mut status.container_statuses, &old.container_statuses),
            (&mut status.init_container_statuses, &old.init_container_statuses),
        ];
        for (statuses, old) in lists {
            for status in statuses.iter_mut().flatten() {
                let Some(member) = model.member(&status.name) else { continue };
                let known = old.iter().flatten().find(|known| known.name == status.name);
                let claims = member.spec.resources.iter().flat_map(|resources| resources.claims.iter().flatten());
                for claim in claims {
                    if let Some(told) = self.of_claim(model, claim, known) {
                        status.allocated_resources_status.get_or_insert_default().push(told);
                    }
                }
            }
        }
    }

    fn of_claim(&self, model: &Model, claim: &ResourceClaim, known: Option<&ContainerStatus>) -> Option<ResourceStatus> {
        let name = match claim.request.as_deref().unwrap_or_default() {
            "" => format!("claim:{}", claim.name),
            request => format!("claim:{}/{request}", claim.name),
        };
        let entry = rules::entries(&model.pod).iter().find(|entry| entry.name == claim.name)?;
        let actual = rules::named(&model.pod, entry).name()?;
        let records = self.records.lock();
        let is_ours = |record: &&Record| record.is_of(actual, model.uid());
        let Some(record) = records.values().find(is_ours) else {
            let told = known?.allocated_resources_status.iter().flatten();
            return told.into_iter().find(|told| told.name == name).cloned();
        };
        let (findings, now) = (self.findings.lock(), Instant::now());
        let resources: Vec<ResourceHealth> = record
            .devices(claim.request.as_deref())
            .map(|(driver, device)| {
                let (health, message) = findings.of(driver, &device.pool, &device.device, now);
                let own = || format!("{driver}/{}/{}", device.pool, device.device);
                let resource_id = device.cdi.first().cloned().unwrap_or_else(own);
                ResourceHealth { resource_id, health: Some(health.to_owned()), message }
            })
            .collect();
        (!resources.is_empty()).then_some(ResourceStatus { name, resources: Some(resources) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use csi::dra::DeviceName;
    use serde_json::{Value, json};

    use super::super::records::Device;
    use super::*;
    use crate::pod::testing::model;

    fn health(device: &str, health: HealthStatus, seconds: i64, message: &str) -> DeviceHealth {
        DeviceHealth {
            device: Some(DeviceName { pool_name: "p".to_owned(), device_name: device.to_owned() }),
            health: health.into(),
            health_check_timeout_seconds: seconds,
            message: message.to_owned(),
            ..DeviceHealth::default()
        }
    }

    /// KEP-4680: "Unknown" after the time for which a finding counts.
    #[test]
    fn findings_count_for_a_time() {
        let (mut findings, began) = (Findings::default(), Instant::now());
        let sick = || vec![health("a", HealthStatus::Unhealthy, 0, "hot"), health("b", HealthStatus::Healthy, 5, "")];
        assert!(findings.take("d", 1, sick(), began));
        assert!(!findings.take("d", 1, sick(), began + Duration::from_secs(1)), "the same again");
        let of = |device: &str, seconds: u64| findings.of("d", "p", device, began + Duration::from_secs(seconds));
        assert_eq!(of("a", 2), ("Unhealthy", Some("hot".to_owned())));
        assert_eq!((of("b", 5), of("b", 6)), (("Healthy", None), ("Unknown", None)));
        assert_eq!((of("a", 31), of("c", 1)), (("Unknown", None), ("Unknown", None)));
        assert_eq!(findings.next_end("d", 1, began), Some(began + Duration::from_secs(6)));
        assert_eq!(findings.next_end("d", 1, began + Duration::from_secs(6)), Some(began + Duration::from_secs(31)));
        assert!(findings.take("d", 1, sick(), began + Duration::from_secs(40)), "known again");
        assert!(findings.forget("d", 1) && !findings.forget("d", 1));
    }

    /// The plugin of a driver that is replaced ends after the next one has told of the devices.
    #[test]
    fn the_newest_plugin_is_believed() {
        let (mut findings, now) = (Findings::default(), Instant::now());
        let of = |findings: &Findings, device: &str| findings.of("d", "p", device, now).0;
        findings.take("d", 1, vec![health("a", HealthStatus::Unhealthy, 0, ""), health("b", HealthStatus::Healthy, 0, "")], now);
        findings.take("d", 2, vec![health("a", HealthStatus::Healthy, 0, "")], now);
        findings.take("e", 3, vec![health("c", HealthStatus::Healthy, 0, "")], now);
        assert_eq!((of(&findings, "a"), of(&findings, "b"), of(&findings, "c")), ("Healthy", "Healthy", "Unknown"));
        assert!(findings.forget("d", 1));
        assert_eq!((of(&findings, "a"), of(&findings, "b")), ("Healthy", "Unknown"));
        findings.take("d", 1, vec![health("a", HealthStatus::Unhealthy, 0, "")], now);
        assert!(findings.forget("d", 2));
        assert_eq!(of(&findings, "a"), "Unhealthy", "the one that is left, after an update that was taken back");
    }

    #[test]
    fn what_drivers_say_has_bounds() {
        let check = |seconds: i64, expected: Duration| {
            let (mut findings, now) = (Findings::default(), Instant::now());
            findings.take("d", 1, vec![health("a", HealthStatus::Healthy, seconds, "")], now);
            assert_eq!(findings.next_end("d", 1, now), Some(now + expected), "{seconds}");
        };
        check(i64::MAX, LONGEST);
        check(i64::MIN, COUNTS);
        check(-1, COUNTS);
        check(0, COUNTS);
        check(1, Duration::from_secs(1));
        assert_eq!(cut("\u{e4}".repeat(1000)).len(), MESSAGE);
        assert_eq!(cut("x".to_owned() + &"\u{e4}".repeat(1000)).len(), MESSAGE - 1);
        assert_eq!(cut("hot".to_owned()), "hot");
    }

    /// Names of devices may be made anew each time, as those of partitions.
    #[test]
    fn findings_that_are_over_make_room() {
        let (mut findings, now) = (Findings::default(), Instant::now());
        let many = |from: usize, count: usize| {
            (from..from + count).map(|number| health(&number.to_string(), HealthStatus::Healthy, 5, "")).collect::<Vec<_>>()
        };
        findings.take("d", 1, many(0, MOST), now);
        findings.take("d", 1, many(MOST, 1), now + Duration::from_secs(1));
        let of =
            |findings: &Findings, seconds: u64| findings.of("d", "p", &MOST.to_string(), now + Duration::from_secs(seconds)).0;
        assert_eq!(of(&findings, 2), "Unknown", "there is no room");
        findings.take("d", 1, many(MOST, 1), now + Duration::from_secs(10));
        assert_eq!(of(&findings, 11), "Healthy");
        assert_eq!(findings.0.values().map(BTreeMap::len).sum::<usize>(), 1);
    }

    /// KEP-4680: "for DRA resources the name is claim:<claim_name>/<request>".
    #[test]
    fn a_status_names_the_devices_of_claims() {
        let pod = model(json!({
            "resourceClaims": [{"name": "crane", "resourceClaimName": "shared"}],
            "containers": [{"name": "c", "image": "i", "resources": {"claims": [{"name": "crane", "request": "r"}]}}, {"name": "d", "image": "i"}]}));
        let device = |request: &str, name: &str, cdi: &[&str]| Device {
            requests: vec![request.to_owned()],
            pool: "p".to_owned(),
            device: name.to_owned(),
            cdi: cdi.iter().map(|one| (*one).to_owned()).collect(),
            share: None,
        };
        let devices = vec![device("r", "a", &["v/c=a"]), device("r", "b", &[]), device("other", "e", &[])];
        let record = Record {
            name: "shared".to_owned(),
            uid: "u".to_owned(),
            pods: [pod.uid().to_owned()].into(),
            drivers: [("d".to_owned(), Some(devices))].into(),
            ..Record::default()
        };
        let claims = Claims::default();
        claims.records.lock().insert("u".to_owned(), record);
        claims.findings.lock().take("d", 1, vec![health("b", HealthStatus::Unhealthy, 0, "hot")], Instant::now());
        let status = |told: Value| -> PodStatus {
            let one = |name: &str, told: Value| json!({"name": name, "image": "", "imageID": "", "ready": true, "restartCount": 0, "allocatedResourcesStatus": told});
            serde_json::from_value(json!({"containerStatuses": [one("c", told), one("d", Value::Null)]})).unwrap()
        };
        let mut new = status(Value::Null);
        claims.tell_health(&pod, &mut new, &PodStatus::default());
        let told = status(json!([{"name": "claim:crane/r", "resources": [
            {"resourceID": "v/c=a", "health": "Unknown"}, {"resourceID": "d/p/b", "health": "Unhealthy", "message": "hot"}]}]));
        assert_eq!(new, told);
        // What was told stays when the claim has been given back.
        claims.records.lock().clear();
        let mut later = status(Value::Null);
        claims.tell_health(&pod, &mut later, &new);
        assert_eq!(later, new);
    }
}
