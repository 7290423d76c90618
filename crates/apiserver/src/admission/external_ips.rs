//! DenyServiceExternalIPs, where it is enabled: no Service gets external addresses that it has not already.

use apimachinery::Status;
use async_trait::async_trait;
use registry::{Admission, Operation, Request};
use serde_json::Value;

use super::{forbidden, is};

pub(super) struct DenyServiceExternalIps;

#[async_trait]
impl Admission for DenyServiceExternalIps {
    fn name(&self) -> &'static str {
        "DenyServiceExternalIPs"
    }

    fn handles(&self, a: &Request<'_>) -> bool {
        is(a, "", "services") && a.subresource.is_empty() && matches!(a.operation, Operation::Create | Operation::Update)
    }

    async fn validate(&self, a: &Request<'_>) -> Result<(), Status> {
        match a.object() {
            Some(service) if gets_more(service, a.old) => Err(forbidden(a, "Use of external IPs is denied by admission control")),
            _ => Ok(()),
        }
    }
}

fn addresses(service: &Value) -> impl Iterator<Item = &Value> {
    service["spec"]["externalIPs"].as_array().into_iter().flatten()
}

fn gets_more(service: &Value, old: Option<&Value>) -> bool {
    addresses(service).any(|address| !old.is_some_and(|old| addresses(old).any(|known| known == address)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses_may_go_and_stay() {
        let service = |addresses: &[&str]| json!({"spec": {"externalIPs": addresses}});
        let check = |new: &[&str], old: Option<&[&str]>, expected: bool| {
            assert_eq!(gets_more(&service(new), old.map(service).as_ref()), expected, "{new:?} {old:?}");
        };
        check(&[], None, false);
        check(&["192.0.2.1"], None, true);
        check(&["192.0.2.1"], Some(&["192.0.2.1", "192.0.2.2"]), false);
        check(&["192.0.2.1", "192.0.2.3"], Some(&["192.0.2.1"]), true);
        assert!(!gets_more(&json!({"spec": {}}), None));
    }
}
