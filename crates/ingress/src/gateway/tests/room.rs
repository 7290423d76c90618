//! Room for the regular expressions of routes.

use super::*;

/// Regular expressions take room, and what they are refused for is tried again: only where somebody here would serve the route.
#[test]
fn only_routes_that_are_attached_take_room() {
    let all = crate::patterns::fill("crowded");
    let check = |gateway: &str, namespace: &str, expected: bool| {
        let rules = json!([{"matches": [{"path": {"type": "RegularExpression", "value": "/x.*"}}]}]);
        let parents = json!([{"name": gateway, "namespace": "infra"}]);
        let route = json!({"metadata": {"name": "r", "namespace": namespace}, "spec": {"parentRefs": parents, "rules": rules}});
        let listeners =
            json!([{"name": "web", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}}}]);
        let mut objects = objects(listeners, json!({}), &[]);
        objects.routes = [(Key::namespaced(namespace, "r"), read(route))].into();
        assert_eq!(planned(&objects).without_room, expected, "{gateway} {namespace}");
    };
    check("g", "crowded", true);
    check("f", "crowded", false);
    check("missing", "crowded", false);
    drop(all);
    check("g", "crowded", false);
}
