//! Removes requests for certificates of pods a quarter of an hour after they were made, whatever became of them: kubelets take what they were given
//! at once, and ask again where nobody has answered.

use std::time::Duration;

use client::{Api, Informer, Informers, Key};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1beta1::PodCertificateRequest;

use crate::controller::{Action, Controller, Cx, Error, Source};
use crate::write;

/// How long a request stays (upstream's figure).
const KEPT: SignedDuration = SignedDuration::from_mins(15);

pub(crate) struct PodCleaner {
    requests: Informer<PodCertificateRequest>,
}

impl PodCleaner {
    pub(crate) fn new(informers: &Informers) -> Self {
        Self { requests: informers.of() }
    }
}

/// How long a request stays from now on; none when its time is over.
fn left(request: &PodCertificateRequest, now: Timestamp) -> Option<Duration> {
    let created = request.metadata.creation_timestamp.as_ref().map(|time| time.0)?;
    let left = created.saturating_add(KEPT).unwrap_or(now).duration_since(now);
    Duration::try_from(left).ok().filter(|left| !left.is_zero())
}

impl Controller for PodCleaner {
    const NAME: &'static str = "podcertificaterequest-cleaner";
    const ACCOUNT: &'static str = "podcertificaterequestcleaner";

    fn sources(&self) -> Vec<Source> {
        vec![Source::own(&self.requests)]
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        let Some(request) = self.requests.by_key(key) else { return Ok(Action::Done) };
        if let Some(left) = left(&request, cx.clock.now()) {
            return Ok(Action::After(left));
        }
        let api: Api<PodCertificateRequest> = Api::namespaced(cx.client.clone(), key.ns());
        write::delete(&api, request.as_ref()).await?;
        Ok(Action::Done)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::certificates::pods::signing::tests::request;
    use crate::meta;
    use crate::testing::World;
    use serde_json::json;

    #[test]
    fn requests_stay_for_a_quarter_of_an_hour() {
        let check = |age: i64, expected: Option<u64>| {
            let now = "2026-01-01T12:00:00Z".parse::<Timestamp>().unwrap();
            let created = now - SignedDuration::from_secs(age);
            let request = request("a", json!({"creationTimestamp": created}), json!({}));
            assert_eq!(left(&request, now), expected.map(Duration::from_secs), "{age}");
        };
        check(0, Some(900));
        check(899, Some(1));
        check(900, None);
        check(9999, None);
    }

    #[tokio::test]
    async fn old_requests_go() {
        let world = World::new();
        let now = Timestamp::now();
        world.fake.put(&request("old", json!({"creationTimestamp": now - SignedDuration::from_mins(16)}), json!({})));
        world.fake.put(&request("new", json!({"creationTimestamp": now}), json!({})));
        world.start(&["podcertificaterequest-cleaner"]);
        world.fake.until(|all: &[PodCertificateRequest]| all.len() == 1).await;
        assert_eq!(meta::name(&world.fake.all::<PodCertificateRequest>()[0]), "new");
    }
}
