//! Room for routes and for their regular expressions.

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

/// Matches count under each host at each listener. A route that finds no room is told so, and is not served in part; older ones stay.
#[test]
fn matches_of_a_namespace_are_bounded() {
    let listeners: Vec<Value> = (0..50)
        .map(|number| {
            json!({"name": format!("l{number}"), "port": 80, "protocol": "HTTP", "hostname": format!("h{number}.example"),
                "allowedRoutes": {"namespaces": {"from": "All"}}})
        })
        .collect();
    let mut objects = objects(json!(listeners), json!({}), &[]);
    let of = |namespace: &str, name: &str, minute: u32, matches: usize| {
        let matches: Vec<Value> = (0..matches).map(|number| json!({"path": {"value": format!("/{number}")}})).collect();
        let metadata =
            json!({"name": name, "namespace": namespace, "creationTimestamp": format!("2026-01-01T00:{minute:02}:00Z")});
        let parents = json!([{"name": "g", "namespace": "infra"}]);
        let route = json!({"metadata": metadata, "spec": {"parentRefs": parents, "rules": [{"matches": matches}]}});
        (Key::namespaced(namespace, name), read::<types::HttpRoute>(route))
    };
    assert_eq!(bounds::OF_NAMESPACE, 12_500);
    objects.routes =
        [of("a", "a-late", 9, 2), of("a", "b", 1, 100), of("a", "c", 2, 149), of("a", "d", 3, 1), of("b", "e", 9, 100)].into();
    let plan = planned(&objects);
    let accepted = |name: &str| {
        let (.., status) = plan.statuses.iter().find(|(kind, key, _)| *kind == Kind::HttpRoute && key.name == name).unwrap();
        let accepted = &status["parents"][0]["conditions"][0];
        (accepted["status"] == "True", accepted["reason"].as_str().unwrap().to_owned())
    };
    for name in ["b", "c", "d", "e"] {
        assert_eq!(accepted(name), (true, "Accepted".to_owned()), "{name}");
    }
    assert_eq!(accepted("a-late"), (false, "UnsupportedValue".to_owned()));
    assert_eq!(plan.rules.len(), 50 * (100 + 149 + 1 + 100));
}
