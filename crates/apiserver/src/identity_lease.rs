//! The Lease by which the API server says that it is there (docs page "Leases", "API server identity"): `apiserver-` and a digest of the machine's
//! name, in `kube-system`.
//!
//! Upstream renews it every ten seconds, and it is good for an hour. Here it is renewed every ten minutes, which says the same and leaves an idle
//! server alone.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::labels::Selector;
use apimachinery::{Status, meta, names};
use jiff::Timestamp;
use registry::{DeleteOptions, ListOptions, Registry, Served};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::bootstrap::{RETRY, context};

const NAMESPACE: &str = "kube-system";
const IDENTITY: &str = "apiserver.kubernetes.io/identity";
const COMPONENT: &str = "kube-apiserver";
const HOSTNAME: &str = "kubernetes.io/hostname";

/// Seconds that the lease is good for, as upstream.
const GOOD_FOR: i64 = 3600;
const RENEWAL: Duration = Duration::from_secs(600);

/// Who this server is.
struct Identity {
    hostname: String,
    name: String,
    holder: String,
}

impl Identity {
    fn new(hostname: String) -> Self {
        let name = format!("apiserver-{}", base32(&Sha256::digest(&hostname)[..16]));
        Self { hostname, holder: format!("{name}_{}", uuid::Uuid::new_v4()), name }
    }

    /// The lease, made of the one that is there.
    fn lease(&self, found: Option<Value>, now: Timestamp) -> Value {
        let time = Value::from(now.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string());
        let mut lease = found.unwrap_or_else(|| json!({"metadata": {"name": self.name, "namespace": NAMESPACE}, "spec": {}}));
        meta::set_label(&mut lease, IDENTITY, COMPONENT);
        // Linux takes names of machines that no label takes.
        if names::label_value(&self.hostname).is_empty() {
            meta::set_label(&mut lease, HOSTNAME, self.hostname.as_str());
        }
        if lease["spec"]["holderIdentity"] != self.holder.as_str() {
            lease["spec"] = json!({"holderIdentity": self.holder, "acquireTime": time});
        }
        lease["spec"]["leaseDurationSeconds"] = GOOD_FOR.into();
        lease["spec"]["renewTime"] = time;
        lease
    }
}

/// RFC 4648 in lower case, without padding.
fn base32(bytes: &[u8]) -> String {
    let (mut out, mut bits, mut count) = (String::new(), 0_u32, 0);
    for byte in bytes {
        (bits, count) = (bits << 8 | u32::from(*byte), count + 8);
        while count >= 5 {
            count -= 5;
            out.push(char::from(b"abcdefghijklmnopqrstuvwxyz234567"[(bits >> count & 31) as usize]));
        }
    }
    if count > 0 {
        out.push(char::from(b"abcdefghijklmnopqrstuvwxyz234567"[(bits << (5 - count) & 31) as usize]));
    }
    out
}

/// Whether nobody has renewed a lease for its time. One that says no time is none that anybody holds.
fn is_over(lease: &Value, now: Timestamp) -> bool {
    let renewed = lease["spec"]["renewTime"].as_str().and_then(|time| time.parse::<Timestamp>().ok());
    let seconds = lease["spec"]["leaseDurationSeconds"].as_i64().unwrap_or(0);
    renewed.is_none_or(|renewed| now.as_second() > renewed.as_second().saturating_add(seconds))
}

/// Holds the lease until the server ends, and takes those away of servers that are gone.
pub(crate) async fn keep(registry: Arc<Registry>) -> Result<(), Infallible> {
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
    let identity = Identity::new(hostname);
    loop {
        tokio::time::sleep(pause(&renew(&registry, &identity).await)).await;
    }
}

/// How long the next renewal waits for. What is refused as it is will be so the next time, too; what is missing, such as the namespace at the start,
/// comes, and who wrote at the same time is done.
fn pause(renewed: &Result<(), Status>) -> Duration {
    let Err(error) = renewed else { return RENEWAL };
    if (400..500).contains(&error.code) && !matches!(error.code, 404 | 409 | 429) {
        tracing::warn!(%error, "the API server's lease is refused, trying again in ten minutes");
        return RENEWAL;
    }
    tracing::debug!(%error, "the API server's lease cannot be renewed, trying again");
    RETRY
}

async fn renew(registry: &Registry, identity: &Identity) -> Result<(), Status> {
    let leases = registry.resource("coordination.k8s.io", "v1", "leases");
    let leases = leases.ok_or_else(|| Status::internal("leases are not served"))?;
    let leases: &Served = &leases;
    let (cx, now) = (context(), Timestamp::now());
    let found = match registry.get(leases, NAMESPACE, &identity.name, None).await {
        Ok(entry) => Some(entry.value()),
        Err(status) if status.code == 404 => None,
        Err(status) => return Err(status),
    };
    let (is_new, lease) = (found.is_none(), identity.lease(found, now));
    match is_new {
        true => drop(registry.create(&cx, leases, NAMESPACE, None, lease).await?),
        false => drop(registry.update(&cx, leases, "", NAMESPACE, &identity.name, lease).await?),
    }
    let labels = Selector::from_set([(IDENTITY, COMPONENT)]);
    let options = ListOptions { labels: Some(labels), ..ListOptions::default() };
    for other in registry.list(leases, Some(NAMESPACE), &options).await?.entries {
        if is_over(&other.value(), now) {
            registry.delete(&cx, leases, NAMESPACE, other.name(), DeleteOptions::default()).await.map(drop).or_else(gone)?;
        }
    }
    Ok(())
}

fn gone(status: Status) -> Result<(), Status> {
    if status.code == 404 { Ok(()) } else { Err(status) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::open;

    /// RFC 4648, section 10.
    #[test]
    fn digests_are_written_in_base32() {
        let check = |text: &str, expected: &str| assert_eq!(base32(text.as_bytes()), expected);
        check("", "");
        check("f", "my");
        check("fo", "mzxq");
        check("foobar", "mzxw6ytboi");
    }

    /// "each kube-apiserver instance" has one; "expired leases from kube-apiservers that no longer exist are garbage collected".
    #[tokio::test]
    async fn the_lease_is_held_and_those_of_others_end() {
        let opened = open().await;
        let leases = opened.registry.resource("coordination.k8s.io", "v1", "leases").unwrap();
        let namespaces = opened.registry.resource("", "v1", "namespaces").unwrap();
        let namespace = json!({"metadata": {"name": NAMESPACE}});
        opened.registry.create(&context(), &namespaces, "", None, namespace).await.unwrap();
        let lease = |host: &str, at: &str| Identity::new(host.to_owned()).lease(None, at.parse().unwrap());
        for lease in [lease("old", "2020-01-01T00:00:00Z"), lease("other", "2099-01-01T00:00:00Z")] {
            opened.registry.create(&context(), &leases, NAMESPACE, None, lease).await.unwrap();
        }
        let identity = Identity::new("own".to_owned());
        renew(&opened.registry, &identity).await.unwrap();
        renew(&opened.registry, &identity).await.unwrap();
        let list = opened.registry.list(&leases, Some(NAMESPACE), &ListOptions::default()).await.unwrap();
        let mut hosts: Vec<String> =
            list.entries.iter().map(|entry| meta::label(&entry.value(), HOSTNAME).unwrap().to_owned()).collect();
        hosts.sort();
        assert_eq!(hosts, ["other", "own"]);
        let own = opened.registry.get(&leases, NAMESPACE, &identity.name, None).await.unwrap().value();
        assert_eq!(
            (&own["spec"]["holderIdentity"], &own["spec"]["leaseDurationSeconds"]),
            (&json!(identity.holder), &json!(3600))
        );
    }

    #[test]
    fn what_is_refused_is_not_asked_again_at_once() {
        let check = |code: u16, expected: Duration| {
            let status = Status { code, ..Status::internal("why") };
            assert_eq!(pause(&Err(status)), expected, "{code}");
        };
        assert_eq!(pause(&Ok(())), RENEWAL);
        [400, 403, 422].into_iter().for_each(|code| check(code, RENEWAL));
        [404, 409, 429, 500, 503, 507].into_iter().for_each(|code| check(code, RETRY));
    }

    /// Linux takes 64 bytes of any sort (sethostname(2)), a label's value 63 of some.
    #[tokio::test]
    async fn a_machine_whose_name_no_label_takes_has_a_lease_without_it() {
        let opened = open().await;
        let served = |group: &str, plural: &str| opened.registry.resource(group, "v1", plural).unwrap();
        let namespace = json!({"metadata": {"name": NAMESPACE}});
        opened.registry.create(&context(), &served("", "namespaces"), "", None, namespace).await.unwrap();
        for hostname in ["a".repeat(64), "-x-".to_owned()] {
            let identity = Identity::new(hostname.clone());
            renew(&opened.registry, &identity).await.unwrap();
            renew(&opened.registry, &identity).await.unwrap();
            let leases = served("coordination.k8s.io", "leases");
            let own = opened.registry.get(&leases, NAMESPACE, &identity.name, None).await.unwrap().value();
            assert_eq!([meta::label(&own, IDENTITY), meta::label(&own, HOSTNAME)], [Some(COMPONENT), None], "{hostname}");
        }
    }
}
