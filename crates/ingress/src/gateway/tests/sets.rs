//! ListenerSets (GEP-1713).

use super::listeners::{listeners, told};
use super::*;

/// A Gateway that allows ListenerSets, and its ListenerSets, made in this order.
struct Cluster {
    objects: Objects,
    age: i64,
}

impl Cluster {
    fn new(allowed: Value, own: &[&str]) -> Self {
        let mut objects = objects(listeners(own), json!({}), &[]);
        let gateway = objects.gateways.get_mut(&Key::namespaced("infra", "g")).unwrap();
        gateway.spec.allowed_listeners = (!allowed.is_null()).then(|| read(json!({"namespaces": allowed})));
        Self { objects, age: 0 }
    }

    fn set(mut self, key: &str, texts: &[&str]) -> Self {
        self.age += 1;
        let (namespace, name) = key.split_once('/').unwrap();
        let metadata = json!({"namespace": namespace, "name": name, "generation": 2,
            "creationTimestamp": format!("2026-01-01T00:00:{:02}Z", self.age)});
        let spec = json!({"parentRef": {"name": "g", "namespace": "infra"}, "listeners": listeners(texts)});
        self.objects.listener_sets.insert(Key::namespaced(namespace, name), read(json!({"metadata": metadata, "spec": spec})));
        self
    }

    /// An HTTPRoute for any host with these parents: `KIND NAMESPACE/NAME SECTION`.
    fn route(mut self, name: &str, parents: &[&str]) -> Self {
        let parent = |text: &&str| {
            let words: Vec<&str> = text.split(' ').collect();
            let (namespace, of) = words[1].split_once('/').unwrap();
            let mut parent = json!({"kind": words[0], "namespace": namespace, "name": of});
            if let Some(section) = words.get(2) {
                parent["sectionName"] = json!(section);
            }
            parent
        };
        let parents: Vec<Value> = parents.iter().map(parent).collect();
        let rules = json!([{"backendRefs": [{"name": "web", "port": 80}]}]);
        let route = json!({"metadata": {"namespace": "a", "name": name}, "spec": {"parentRefs": parents, "rules": rules}});
        self.objects.routes.insert(Key::namespaced("a", name), read(route));
        self
    }
}

fn of<'p>(plan: &'p Plan, kind: Kind, name: &str) -> &'p Value {
    &plan.statuses.iter().find(|(found, key, _)| *found == kind && key.name == name).unwrap().2
}

/// ListenerSetAllowedNamespacesDefault, -None, -Same, -All and -Selector of the conformance tests.
#[test]
fn gateways_say_which_sets_they_allow() {
    let check = |allowed: Value, expected: [bool; 2]| {
        let cluster = Cluster::new(allowed.clone(), &["own HTTP 80 own.example"]);
        let cluster = cluster.set("infra/near", &["l HTTP 80 near.example"]).set("far/away", &["l HTTP 80 away.example"]);
        let plan = planned(&cluster.objects);
        for (name, is_allowed) in ["near", "away"].into_iter().zip(expected) {
            let conditions = conditions(of(&plan, Kind::ListenerSet, name));
            let wanted = match is_allowed {
                true => ["Accepted True Accepted", "Programmed True Programmed"],
                false => ["Accepted False NotAllowed", "Programmed False NotAllowed"],
            };
            assert_eq!(conditions, wanted, "{allowed} {name}");
        }
        let attached = expected.iter().filter(|allowed| **allowed).count();
        assert_eq!(of(&plan, Kind::Gateway, "g")["attachedListenerSets"], attached, "{allowed}");
    };
    check(Value::Null, [false, false]);
    check(json!({}), [false, false]);
    check(json!({"from": "None"}), [false, false]);
    check(json!({"from": "Same"}), [true, false]);
    check(json!({"from": "All"}), [true, true]);
    // Namespaces have no labels in these tests.
    check(json!({"from": "Selector", "selector": {}}), [true, true]);
    check(json!({"from": "Selector", "selector": {"matchLabels": {"a": "b"}}}), [false, false]);
}

/// ListenerSetProtocolConflict, ListenerSetHostnameConflict and ListenerSetProtocolAndRouteKindConflicts of the conformance tests, with the listeners of
/// the manifests of the first two.
#[test]
fn the_first_of_several_resources_has_the_place() {
    let check = |gateway: &str, wrong_protocol: bool, reason: &str| {
        let conflicting = |name: &str| {
            let host = if wrong_protocol { String::new() } else { format!(" {name}.com") };
            let protocol = if wrong_protocol { "TCP" } else { "HTTP" };
            format!("{name} {protocol} 80{host}")
        };
        let (with_gateway, with_set) = (conflicting("with-gateway"), conflicting("with-set"));
        let cluster = Cluster::new(json!({"from": "Same"}), &["own HTTP 80 own.com", gateway])
            .set("infra/gateway-1", &["one HTTP 80 one.com", &with_gateway, "with-set HTTP 80 with-set.com"])
            .set("infra/gateway-2", &[&with_gateway])
            .set("infra/set-1", &["two HTTP 80 two.com", &with_set])
            .set("infra/set-2", &[&with_set]);
        let plan = planned(&cluster.objects);
        let gateway = of(&plan, Kind::Gateway, "g");
        assert_eq!(told(gateway), ["own Accepted", "with-gateway Accepted"]);
        assert_eq!(
            (conditions(gateway), &gateway["attachedListenerSets"]),
            (vec!["Accepted True Accepted".to_owned(), "Programmed True Programmed".to_owned()], &json!(2))
        );
        let programmed = &of(&plan, Kind::ListenerSet, "set-2")["listeners"][0]["conditions"][2];
        assert_eq!((&programmed["status"], &programmed["reason"]), (&json!("False"), &json!(reason)));
        let lost = |name: &str| format!("{name} {reason} {reason}");
        let set = |name: &str| of(&plan, Kind::ListenerSet, name);
        assert_eq!(told(set("gateway-1")), ["one Accepted".to_owned(), lost("with-gateway"), "with-set Accepted".to_owned()]);
        assert_eq!(told(set("gateway-2")), [lost("with-gateway")]);
        assert_eq!(told(set("set-1")), ["two Accepted".to_owned(), lost("with-set")]);
        assert_eq!(told(set("set-2")), [lost("with-set")]);
        for (name, accepted) in [("gateway-1", true), ("gateway-2", false), ("set-1", true), ("set-2", false)] {
            let wanted = match accepted {
                true => ["Accepted True ListenersNotValid", "Programmed True Programmed"],
                false => ["Accepted False ListenersNotValid", "Programmed False ListenersNotValid"],
            };
            assert_eq!(conditions(set(name)), wanted, "{name}");
        }
    };
    check("with-gateway HTTP 80 with-gateway.com", true, "ProtocolConflict");
    check("with-gateway HTTP 80 with-gateway.com", false, "HostnameConflict");
}

/// GEP-1713: "in case of a conflict, the first Listener on the precedence list MUST be accepted": the oldest ListenerSet, whatever the names are. Within
/// one ListenerSet nobody is first.
#[test]
fn older_sets_come_first() {
    let all = json!({"from": "All"});
    let cluster = Cluster::new(all.clone(), &["own HTTP 80 own.example"]);
    let cluster = cluster.set("z/old", &["l HTTPS 443 shop.example"]).set("a/new", &["l HTTPS 443 shop.example"]);
    let plan = planned(&cluster.objects);
    let set = |name: &str| told(of(&plan, Kind::ListenerSet, name));
    assert_eq!((set("old"), set("new")), (vec!["l Accepted".to_owned()], vec!["l HostnameConflict HostnameConflict".to_owned()]));
    let message = &of(&plan, Kind::ListenerSet, "new")["listeners"][0]["conditions"][0]["message"];
    assert_eq!(message, "it is not distinct from another listener of the Gateway, which comes first", "others are not named");
    let cluster = Cluster::new(all, &["own HTTP 80 own.example"]);
    let cluster =
        cluster.set("z/old", &["l HTTPS 443 shop.example", "m TLS 443 shop.example"]).set("a/new", &["l HTTPS 443 shop.example"]);
    let plan = planned(&cluster.objects);
    let set = |name: &str| told(of(&plan, Kind::ListenerSet, name));
    assert_eq!(set("old"), ["l ProtocolConflict ProtocolConflict", "m ProtocolConflict ProtocolConflict"]);
    assert_eq!(set("new"), ["l HostnameConflict HostnameConflict"], "what is to be set right is not for others to take");
}

/// ListenerSetDualParentRefIndependence, ListenerSetRouteStatusScopedToParentRef and ListenerSetGatewayParentSectionNameNotFound of the conformance
/// tests: routes attach to the listeners of the parent that they name and to no others.
#[test]
fn routes_attach_to_their_direct_parent() {
    let (gateway, set) = ("Gateway infra/g", "ListenerSet infra/s");
    let cluster = Cluster::new(json!({"from": "Same"}), &["own HTTP 80 own.example"]).set("infra/s", &["l HTTP 80 set.example"]);
    let cluster = cluster.route("both", &[gateway, set]).route("bad", &["Gateway infra/g l", set]).route("own", &[gateway]);
    let plan = planned(&cluster.route("other", &["ListenerSet infra/none"]).objects);
    let parents = |name: &str| {
        let all = of(&plan, Kind::HttpRoute, name)["parents"].as_array().unwrap();
        all.iter().map(|one| format!("{} {}", one["parentRef"]["kind"].as_str().unwrap(), conditions(one)[0])).collect::<Vec<_>>()
    };
    assert_eq!(parents("both"), ["Gateway Accepted True Accepted", "ListenerSet Accepted True Accepted"]);
    assert_eq!(parents("bad"), ["Gateway Accepted False NoMatchingParent", "ListenerSet Accepted True Accepted"]);
    assert_eq!(parents("own"), ["Gateway Accepted True Accepted"]);
    assert!(!plan.statuses.iter().any(|(_, key, _)| key.name == "other"), "nothing of ours");
    let mut served: Vec<_> = plan.rules.iter().map(|rule| format!("{} {}", rule.route.name, rule.host)).collect();
    served.sort();
    assert_eq!(served, ["bad set.example", "both own.example", "both set.example", "own own.example"]);
    let attached = |kind, name: &str| of(&plan, kind, name)["listeners"][0]["attachedRoutes"].clone();
    assert_eq!((attached(Kind::Gateway, "g"), attached(Kind::ListenerSet, "s")), (json!(2), json!(2)));
}

/// A ListenerSet that its Gateway does not allow has no listeners there: its routes find no parent.
#[test]
fn routes_of_sets_that_are_not_allowed() {
    let cluster = Cluster::new(Value::Null, &["own HTTP 80 own.example"]).set("infra/s", &["l HTTP 80 set.example"]);
    let plan = planned(&cluster.route("r", &["ListenerSet infra/s"]).objects);
    let told = conditions(&of(&plan, Kind::HttpRoute, "r")["parents"][0]);
    assert_eq!((plan.rules.len(), told[0].as_str()), (0, "Accepted False NoMatchingParent"));
}

/// ListenerSetReferenceGrant of the conformance tests: "a ListenerSet listener MUST NOT access secrets granted to the Gateway listeners", and Secrets of
/// its own namespace need no grant. Routes of its own namespace are those that `Same` means (ListenerSetAllowedRoutesNamespaces).
#[test]
fn sets_have_rights_of_their_own() {
    let check = |granted_to: &str, namespace: &str, expected: &str| {
        let mut cluster =
            Cluster::new(json!({"from": "All"}), &["own HTTP 80 own.example"]).set("a/s", &["l HTTPS 443 set.example"]);
        let set = cluster.objects.listener_sets.get_mut(&Key::namespaced("a", "s")).unwrap();
        set.spec.listeners[0].tls.as_mut().unwrap().certificate_refs[0].namespace = Some(namespace.to_owned());
        let from = json!([{"group": GROUP, "kind": granted_to, "namespace": "a"}]);
        let grant =
            json!({"metadata": {"name": "g", "namespace": "b"}, "spec": {"from": from, "to": [{"group": "", "kind": "Secret"}]}});
        cluster.objects.grants.insert(Key::namespaced("b", "g"), read(grant));
        let plan = planned(&cluster.objects);
        let listener = &of(&plan, Kind::ListenerSet, "s")["listeners"][0];
        assert_eq!(conditions(listener)[1], expected, "{granted_to} {namespace}");
        assert_eq!(plan.tls.len(), usize::from(expected.contains("True")));
    };
    let good = "ResolvedRefs True ResolvedRefs";
    check("Gateway", "a", good);
    check("ListenerSet", "b", good);
    check("Gateway", "b", "ResolvedRefs False RefNotPermitted");
    let mut cluster = Cluster::new(json!({"from": "All"}), &["own HTTP 80 own.example"]).set("a/s", &["l HTTP 80 set.example"]);
    let set = cluster.objects.listener_sets.get_mut(&Key::namespaced("a", "s")).unwrap();
    set.spec.listeners[0].allowed_routes = read(json!({}));
    let plan = planned(&cluster.route("r", &["ListenerSet a/s"]).objects);
    assert_eq!(plan.rules.len(), 1);
}

/// ListenerSetReasonParentNotAccepted: "the parent Gateway is not accepted".
#[test]
fn sets_of_gateways_that_are_not_accepted() {
    let mut cluster = Cluster::new(json!({"from": "All"}), &["own HTTP 80"]).set("a/s", &["l HTTP 80 set.example"]);
    let gateway = cluster.objects.gateways.get_mut(&Key::namespaced("infra", "g")).unwrap();
    gateway.spec.addresses = read(json!([{"type": "Hostname", "value": "x"}]));
    let plan = planned(&cluster.objects);
    let told = conditions(of(&plan, Kind::ListenerSet, "s"));
    assert_eq!(told, ["Accepted False ParentNotAccepted", "Programmed False ParentNotAccepted"]);
    // One of a Gateway that is not ours is others' to tell.
    let set = cluster.objects.listener_sets.get_mut(&Key::namespaced("a", "s")).unwrap();
    set.spec.parent_ref.name = "f".to_owned();
    assert!(!planned(&cluster.objects).statuses.iter().any(|(kind, ..)| *kind == Kind::ListenerSet));
}

/// "When there are no listeners the Gateway's status.listeners should be empty or unset": it is there for its ListenerSets.
#[test]
fn a_gateway_without_listeners_of_its_own() {
    let cluster = Cluster::new(json!({"from": "Same"}), &[]).set("infra/s", &["l HTTP 8080 set.example"]);
    let plan = planned(&cluster.objects);
    let gateway = of(&plan, Kind::Gateway, "g");
    assert_eq!(conditions(gateway), ["Accepted True Accepted", "Programmed True Programmed"]);
    assert_eq!((&gateway["listeners"], &gateway["attachedListenerSets"]), (&json!([]), &json!(1)));
    assert_eq!(plan.ports.len(), 1);
}
