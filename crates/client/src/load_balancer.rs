//! Where a load balancer is served.

use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service};

/// Where a Service is served as a load balancer. Its status may still say so when it has another type: then nobody serves it.
pub fn served_at(service: &Service) -> &[LoadBalancerIngress] {
    let is_balancer = service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("LoadBalancer");
    let status = service.status.as_ref().filter(|_| is_balancer);
    status.and_then(|status| status.load_balancer.as_ref()?.ingress.as_deref()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn only_load_balancers_are_served() {
        let check = |kind: &str, expected: usize| {
            let status = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
            let service: Service = serde_json::from_value(json!({"spec": {"type": kind}, "status": status})).unwrap();
            assert_eq!(served_at(&service).len(), expected, "{kind}");
        };
        check("LoadBalancer", 1);
        for kind in ["ClusterIP", "NodePort", "ExternalName"] {
            check(kind, 0);
        }
        assert!(served_at(&Service::default()).is_empty());
    }
}
