//! Removes requests that nobody needs any more: what became of a request is of interest for an hour, one that nobody decides on for a day.

use std::time::Duration;

use client::{Api, Informer, Informers, Key};
use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

use super::{APPROVED, DENIED, FAILED, conditions, is_issued};
use crate::controller::{Action, Controller, Cx, Error, Source};
use crate::write;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

pub(crate) struct Cleaner {
    requests: Informer<CertificateSigningRequest>,
}

impl Cleaner {
    pub(crate) fn new(informers: &Informers) -> Self {
        Self { requests: informers.of() }
    }
}

/// When a request goes.
fn end(request: &CertificateSigningRequest) -> Option<Timestamp> {
    let since = |kind: &str| {
        let condition = conditions(request).iter().find(|condition| condition.type_ == kind)?;
        condition.last_update_time.as_ref().map(|time| time.0)
    };
    let created = request.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let after = |from: Option<Timestamp>, seconds| from?.checked_add(jiff::SignedDuration::from_secs(seconds)).ok();
    let decided = [since(DENIED), since(FAILED), since(APPROVED).filter(|_| is_issued(request))];
    match decided.into_iter().flatten().min() {
        Some(at) => after(Some(at), HOUR),
        None => after(created, DAY),
    }
}

impl Controller for Cleaner {
    const NAME: &'static str = "certificatesigningrequest-cleaner";
    const ACCOUNT: &'static str = "certificate-controller";

    fn sources(&self) -> Vec<Source> {
        vec![Source::own(&self.requests)]
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        let Some(request) = self.requests.by_key(key) else { return Ok(Action::Done) };
        let Some(end) = end(&request) else { return Ok(Action::Done) };
        match Duration::try_from(end.duration_since(cx.clock.now())) {
            Ok(left) if !left.is_zero() => Ok(Action::After(left)),
            _ => {
                write::delete(&Api::<CertificateSigningRequest>::all(cx.client.clone()), request.as_ref()).await?;
                Ok(Action::Done)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::object;
    use serde_json::{Value, json};

    #[test]
    fn ends() {
        let check = |condition: Option<(&str, &str)>, certificate: Value, expected: &str| {
            let conditions = condition.map(|(kind, time)| json!([{"type": kind, "status": "True", "lastUpdateTime": time}]));
            let request: CertificateSigningRequest = object(json!({
                "metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"signerName": "a/b", "request": ""},
                "status": {"conditions": conditions, "certificate": certificate},
            }));
            assert_eq!(end(&request).unwrap().to_string(), expected);
        };
        check(None, Value::Null, "2026-01-02T00:00:00Z");
        check(Some(("Denied", "2026-01-01T05:00:00Z")), Value::Null, "2026-01-01T06:00:00Z");
        check(Some(("Approved", "2026-01-01T05:00:00Z")), json!("AAAA"), "2026-01-01T06:00:00Z");
        check(Some(("Failed", "2026-01-01T07:00:00Z")), Value::Null, "2026-01-01T08:00:00Z");
        // Nobody has signed it yet.
        check(Some(("Approved", "2026-01-01T05:00:00Z")), Value::Null, "2026-01-02T00:00:00Z");
    }
}
