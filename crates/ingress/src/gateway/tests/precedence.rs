//! Several want the same host.

use super::*;

/// What there is, made in this order.
struct Cluster {
    objects: Objects,
    age: i64,
}

impl Cluster {
    fn new() -> Self {
        INGRESSES.with_borrow_mut(BTreeMap::clear);
        let mut objects = Objects::default();
        let class = json!({"metadata": {"name": "knarr"}, "spec": {"controllerName": CONTROLLER}});
        objects.classes.insert(Key::cluster("knarr"), read(class));
        Self { objects, age: 0 }
    }

    fn metadata(&mut self, namespace: &str, name: &str) -> Value {
        self.age += 1;
        json!({"namespace": namespace, "name": name, "creationTimestamp": format!("2026-01-01T00:00:{:02}Z", self.age)})
    }

    /// A Gateway with listeners for HTTPS and TLS, as `https:shop.test` and `tls:`.
    fn gateway(mut self, namespace: &str, listeners: &[&str]) -> Self {
        let listener = |text: &&str| {
            let (protocol, host) = text.split_once(':').unwrap();
            let tls = match protocol {
                "tls" => json!({"mode": "Passthrough"}),
                _ => json!({"certificateRefs": [{"name": "good"}]}),
            };
            let mut listener = json!({"name": text, "port": 443, "protocol": protocol.to_uppercase(), "tls": tls});
            if !host.is_empty() {
                listener["hostname"] = json!(host);
            }
            listener
        };
        let listeners: Vec<Value> = listeners.iter().map(listener).collect();
        let metadata = self.metadata(namespace, "g");
        let gateway = json!({"metadata": metadata, "spec": {"gatewayClassName": "knarr", "listeners": listeners}});
        self.objects.gateways.insert(Key::namespaced(namespace, "g"), read(gateway));
        self
    }

    fn http(self, namespace: &str, hosts: &[&str]) -> Self {
        self.route(namespace, "http", hosts)
    }

    fn tls(self, namespace: &str, hosts: &[&str]) -> Self {
        self.route(namespace, "tls", hosts)
    }

    fn route(self, namespace: &str, kind: &str, hosts: &[&str]) -> Self {
        self.named(namespace, kind, kind, hosts)
    }

    /// A route of this kind with a name of its own.
    fn named(mut self, namespace: &str, kind: &str, name: &str, hosts: &[&str]) -> Self {
        let metadata = self.metadata(namespace, name);
        let rules = json!([{"backendRefs": [{"name": "web", "port": 80}]}]);
        let route = json!({"metadata": metadata, "spec": {"parentRefs": [{"name": "g"}], "hostnames": hosts, "rules": rules}});
        let routes = match kind {
            "tls" => &mut self.objects.tls,
            "grpc" => &mut self.objects.grpc,
            _ => &mut self.objects.routes,
        };
        routes.insert(Key::namespaced(namespace, name), read(route));
        self
    }

    fn ingress(mut self, namespace: &str, host: &str) -> Self {
        let metadata: ObjectMeta = read(self.metadata(namespace, "i"));
        let ingress = (created(&metadata), Key::namespaced(namespace, "i"));
        INGRESSES.with_borrow_mut(|all| all.entry(host.to_owned()).or_default().push(ingress));
        self
    }

    /// Who has which host, and which routes do not have what they want: status and message of Accepted.
    fn check(self, rules: &[&str], told: &[(&str, &str)]) {
        let plan = planned(&self.objects);
        let mut served: Vec<String> =
            plan.rules.iter().map(|rule| format!("{} {} {}", rule.kind.name(), rule.route.ns(), rule.host)).collect();
        served.sort();
        assert_eq!(served, rules);
        let mut found = Vec::new();
        for (kind, key, status) in plan.statuses.iter().filter(|(_, _, status)| status.get("parents").is_some()) {
            let accepted = &status["parents"][0]["conditions"][0];
            if accepted["message"] != "" {
                let text = |name: &str| accepted[name].as_str().unwrap().to_owned();
                found.push((format!("{} {} {} {}", kind.name(), key.ns(), text("status"), text("reason")), text("message")));
            }
        }
        let found: Vec<(&str, &str)> = found.iter().map(|(who, message)| (who.as_str(), message.as_str())).collect();
        assert_eq!(found, told);
    }
}

#[test]
fn an_older_https_route_keeps_its_host() {
    Cluster::new()
        .gateway("vic", &["https:shop.test"])
        .http("vic", &["shop.test"])
        .gateway("att", &["tls:"])
        .tls("att", &["shop.test"])
        .check(
            &["HTTPRoute vic shop.test"],
            &[("TLSRoute att False HostnameConflict", "host shop.test is served by a listener of Gateway vic/g, which is older")],
        );
    // The listener of the victim names no host, that of the other one does.
    let cluster = Cluster::new().gateway("vic", &["https:"]).http("vic", &["shop.test"]);
    cluster.gateway("att", &["tls:shop.test"]).tls("att", &["shop.test"]).check(
        &["HTTPRoute vic shop.test"],
        &[("TLSRoute att False HostnameConflict", "host shop.test is served by HTTPRoute vic/http, which is older")],
    );
}

#[test]
fn a_host_stays_a_listeners_when_its_route_is_made_anew() {
    let cluster = Cluster::new().gateway("vic", &["https:shop.test"]).gateway("att", &["tls:"]).tls("att", &["shop.test"]);
    cluster.http("vic", &["shop.test"]).check(
        &["HTTPRoute vic shop.test"],
        &[("TLSRoute att False HostnameConflict", "host shop.test is served by a listener of Gateway vic/g, which is older")],
    );
}

#[test]
fn an_older_tls_route_keeps_its_host() {
    let cluster = Cluster::new().gateway("vic", &["tls:"]).tls("vic", &["shop.test"]).gateway("att", &["https:"]);
    cluster.http("att", &["shop.test", "other.test"]).check(
        &["HTTPRoute att other.test", "TLSRoute vic shop.test"],
        &[("HTTPRoute att True Accepted", "host shop.test is served by TLSRoute vic/tls, which is older")],
    );
}

#[test]
fn of_two_tls_routes_the_older_has_the_host() {
    let cluster = Cluster::new().gateway("b", &["tls:"]).tls("b", &["shop.test"]).gateway("a", &["tls:"]);
    cluster.tls("a", &["shop.test"]).check(
        &["TLSRoute b shop.test"],
        &[("TLSRoute a False HostnameConflict", "host shop.test is served by TLSRoute b/tls, which is older")],
    );
}

/// TLSRouteMultipleRoutesAttachmentSameHostnameIntersection of the conformance tests; another Gateway's route gets nothing by naming the host more closely.
#[test]
fn of_the_tls_routes_of_a_listener_the_one_that_names_the_host_most_closely_has_it() {
    let cluster = || Cluster::new().gateway("b", &["tls:shop.test"]).named("b", "tls", "older", &["*.test"]);
    cluster().named("b", "tls", "newer", &["shop.test"]).check(
        &["TLSRoute b shop.test"],
        &[("TLSRoute b False HostnameConflict", "host shop.test is served by TLSRoute b/newer, which is more specific")],
    );
    cluster().named("b", "tls", "newer", &["*.test"]).check(
        &["TLSRoute b shop.test"],
        &[("TLSRoute b False HostnameConflict", "host shop.test is served by TLSRoute b/older, which is older")],
    );
    cluster().gateway("a", &["tls:shop.test"]).named("a", "tls", "newer", &["shop.test"]).check(
        &["TLSRoute b shop.test"],
        &[("TLSRoute a False HostnameConflict", "host shop.test is served by TLSRoute b/older, which is older")],
    );
    let wildcard = Cluster::new().gateway("b", &["tls:*.web.test"]).named("b", "tls", "older", &["*.test"]);
    wildcard.named("b", "tls", "newer", &["*.web.test"]).check(
        &["TLSRoute b *.web.test"],
        &[("TLSRoute b False HostnameConflict", "host *.web.test is served by TLSRoute b/newer, which is more specific")],
    );
}

/// HTTPRouteMultipleRoutesAttachmentSameHostnameIntersection of the conformance tests: "precedence must be given to rules from the HTTPRoute with the largest number of:
/// Characters in a matching non-wildcard hostname. Characters in a matching hostname" (HTTPRouteSpec), before their paths are compared.
#[test]
fn of_the_routes_of_a_listener_those_that_name_the_host_most_closely_come_first() {
    let check = |cluster: Cluster, expected: &[(&str, &str)]| {
        let table = table(&cluster, &[]);
        for (path, expected) in expected {
            let (parts, ()) = http::Request::get(*path).body(()).unwrap().into_parts();
            let found = table.route((Entrance::Ingress, true), "shop.test", path, &parts).unwrap();
            assert_eq!(found.map(|route| route.ingress.to_string()).as_deref(), Some(*expected), "{path}");
        }
    };
    let with_path = |mut cluster: Cluster, key: &Key, path: &str| {
        let route = cluster.objects.routes.get_mut(key).unwrap();
        route.spec.rules[0].matches = read(json!([{"path": {"type": "PathPrefix", "value": path}}]));
        cluster
    };
    let older = || Cluster::new().gateway("b", &["https:shop.test"]).named("b", "http", "older", &["*.test"]);
    check(older().named("b", "http", "newer", &["shop.test"]), &[("/", "b/newer"), ("/api", "b/newer")]);
    check(older().named("b", "http", "newer", &["*.test"]), &[("/", "b/older")]);
    let (older_key, newer_key) = (Key::namespaced("b", "older"), Key::namespaced("b", "newer"));
    let longer = with_path(older(), &older_key, "/api").named("b", "http", "newer", &["shop.test"]);
    check(longer, &[("/", "b/newer"), ("/api", "b/newer")]);
    // What the closest does not match is the next one's.
    let both = older().named("b", "http", "newer", &["shop.test"]);
    check(with_path(both, &newer_key, "/api"), &[("/", "b/older"), ("/api", "b/newer")]);
    // A route without hosts has the listener's.
    check(older().named("b", "http", "newer", &[]), &[("/", "b/newer")]);
    // Gateways share the host by its paths.
    let other = || older().gateway("a", &["https:shop.test"]).named("a", "http", "newer", &["shop.test"]);
    check(other(), &[("/", "b/older"), ("/api", "b/older")]);
    check(with_path(other(), &Key::namespaced("a", "newer"), "/api"), &[("/", "b/older"), ("/api", "a/newer")]);
}

#[test]
fn an_older_ingress_keeps_its_host_unless_the_route_is_its_neighbours() {
    let lost = "host shop.test is served by Ingress vic/i, which is older";
    let cluster = || Cluster::new().ingress("vic", "shop.test").gateway("att", &["tls:", "https:*.test"]);
    cluster().tls("att", &["shop.test"]).check(
        &[],
        &[("TLSRoute att False HostnameConflict", "host shop.test is served by listener https:*.test, which is more specific")],
    );
    cluster().http("att", &["shop.test"]).check(&[], &[("HTTPRoute att False HostnameConflict", lost)]);
    let alone = Cluster::new().ingress("vic", "shop.test").gateway("att", &["tls:"]).tls("att", &["shop.test"]);
    alone.check(&[], &[("TLSRoute att False HostnameConflict", lost)]);
    let own = Cluster::new().ingress("vic", "shop.test").gateway("vic", &["tls:"]).tls("vic", &["shop.test"]);
    own.check(&["TLSRoute vic shop.test"], &[]);
    let older = Cluster::new().gateway("a", &["tls:"]).tls("a", &["shop.test"]).ingress("vic", "shop.test");
    older.check(&["TLSRoute a shop.test"], &[]);
}

#[test]
fn listeners_of_a_gateway_are_isolated() {
    let cluster = Cluster::new().tls("vic", &["h.test", "x.test"]).gateway("vic", &["tls:", "https:h.test"]);
    cluster.http("vic", &[]).check(
        &["HTTPRoute vic h.test", "TLSRoute vic x.test"],
        &[("TLSRoute vic True Accepted", "host h.test is served by listener https:h.test, which is more specific")],
    );
}

#[test]
fn ingresses_are_told_who_has_their_hosts() {
    let cluster = Cluster::new().gateway("vic", &["https:"]).http("vic", &["shop.test"]).ingress("b", "shop.test");
    let plan = planned(&cluster.objects);
    let (ingress, problem) = &plan.conflicts[0];
    assert_eq!(
        (ingress, problem.reason, problem.message.as_str()),
        (&Key::namespaced("b", "i"), "Conflict", "host \"shop.test\" is served by HTTPRoute vic/http")
    );
}

/// The table of a cluster that has these Ingresses, too: name, host, and whether TLS is passed through.
fn table(cluster: &Cluster, ingresses: &[(&str, &str, bool)]) -> Arc<crate::table::Table> {
    let mut model = crate::model::Model::new("cluster.local", Issuers::default(), Arc::default());
    for (minute, (name, host, passes)) in ingresses.iter().enumerate() {
        let (namespace, name) = name.split_once('/').unwrap();
        let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
        let path = if *passes { "/" } else { "/api" };
        let paths = json!({"paths": [{"path": path, "pathType": "Prefix", "backend": backend}]});
        let metadata = json!({"namespace": namespace, "name": name, "creationTimestamp": format!("2026-01-01T00:{minute:02}:00Z"),
            "annotations": {"nginx.ingress.kubernetes.io/ssl-passthrough": passes.to_string()}});
        let ingress = read(json!({"metadata": metadata, "spec": {"rules": [{"host": host, "http": paths}]}}));
        model.set_ingress(&Key::namespaced(namespace, name), Some(&ingress));
    }
    model.set_gateway(planned(&cluster.objects));
    model.step().unwrap().table
}

/// A name whose TLS somebody older ends with his own certificate, or that he serves in the clear, is his although he asks no issuer.
#[test]
fn nobody_gets_a_certificate_for_a_name_of_an_older_listener_or_route() {
    let ordering = |cluster: Cluster, namespace: &str, host: &str| {
        let mut cluster = cluster.gateway(namespace, &[&format!("https:{host}")]);
        let gateway = cluster.objects.gateways.get_mut(&Key::namespaced(namespace, "g")).unwrap();
        gateway.metadata.annotations = Some([("acme.knarr.io/issuer".to_owned(), "letsencrypt".to_owned())].into());
        cluster
    };
    let check = |cluster: &Cluster, expected: &[&str]| {
        let mut model = crate::model::Model::new("cluster.local", Issuers::default(), Arc::default());
        let asking = json!({"metadata": {"namespace": "c", "name": "i", "creationTimestamp": "2026-01-02T00:00:00Z",
                "annotations": {"acme.knarr.io/issuer": "letsencrypt"}},
            "spec": {"tls": [{"hosts": ["shop.test"], "secretName": "s"}], "rules": [{"host": "shop.test", "http": {"paths": [
                {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "web", "port": {"number": 80}}}}]}}]}});
        model.set_ingress(&Key::namespaced("c", "i"), Some(&read(asking)));
        model.set_gateway(planned(&cluster.objects));
        assert_eq!(model.wanted_certificates().keys().map(Key::ns).collect::<Vec<_>>(), expected);
    };
    check(&Cluster::new(), &["c"]);
    check(&ordering(Cluster::new(), "b", "shop.test"), &["b"]);
    check(&ordering(Cluster::new().gateway("a", &["https:shop.test"]), "b", "shop.test"), &[]);
    check(&ordering(Cluster::new().gateway("a", &["https:"]).http("a", &["shop.test"]), "b", "shop.test"), &[]);
    check(&ordering(Cluster::new().gateway("a", &["https:other.test"]), "b", "shop.test"), &["b"]);
    // Routes that a Gateway takes under the name of its listener are no strangers.
    check(&ordering(Cluster::new().http("b", &["shop.test"]), "b", "shop.test"), &["b"]);
}

#[test]
fn the_most_specific_name_comes_first() {
    let check = |cluster: &Cluster, ingresses: &[(&str, &str, bool)], expected: &[(&str, Option<&str>)]| {
        let table = table(cluster, ingresses);
        for (host, expected) in expected {
            let found = table.passes(Entrance::Ingress, host).map(|(route, _)| route.ingress.ns());
            assert_eq!(found, *expected, "{host} {ingresses:?}");
        }
    };
    let gateways =
        Cluster::new().gateway("any", &["tls:"]).tls("any", &[]).gateway("vic", &["https:shop.test", "https:*.web.test"]);
    let gateways = gateways.http("vic", &[]);
    let expected = [("shop.test", None), ("a.b.web.test", None), ("other.test", Some("any")), ("", Some("any"))];
    check(&gateways, &[], &expected);
    let expected = [("ing.test", None), ("a.wild.test", None), ("a.b.wild.test", Some("any"))];
    check(&gateways, &[("c/i", "ing.test", false), ("c/j", "*.wild.test", false)], &expected);
    // A wildcard that is passed through has nothing of a host that somebody else has.
    let expected = [("a.test", None), ("b.test", Some("d"))];
    check(&Cluster::new(), &[("c/i", "a.test", false), ("d/i", "*.test", true)], &expected);
    // Nor does a younger Ingress that has the same host with another path.
    check(&Cluster::new(), &[("c/i", "a.test", false), ("d/i", "a.test", true)], &[("a.test", None)]);
    check(&Cluster::new(), &[("c/i", "a.test", false), ("c/j", "a.test", true)], &[("a.test", Some("c"))]);
}

#[test]
fn a_wildcard_of_a_route_leaves_the_hosts_of_ingresses() {
    let cluster = Cluster::new().gateway("g", &["https:"]).http("g", &["*.test"]);
    let table = table(&cluster, &[("c/i", "a.test", false)]);
    let (parts, ()) = http::Request::get("/").body(()).unwrap().into_parts();
    let of = |host: &str| table.route((Entrance::Ingress, true), host, "/api", &parts).unwrap().map(|route| route.ingress.ns());
    assert_eq!((of("a.test"), of("b.test"), of("a.b.test")), (Some("c"), Some("g"), Some("g")));
}

/// "If a Route (A) of type HTTPRoute or GRPCRoute is attached to a Listener and that listener already has another Route (B) of the other type attached
/// and the intersection of the hostnames of A and B is non-empty, then the implementation MUST accept exactly one of these two routes" (GRPCRouteSpec,
/// hostnames).
#[test]
fn of_routes_of_two_kinds_the_older_has_the_hosts() {
    let cluster = || Cluster::new().gateway("a", &["https:"]);
    let older = |kind: &str| format!("a host of listener https: is served by {kind}, which is older");
    cluster()
        .route("a", "http", &["shop.test"])
        .route("a", "grpc", &["shop.test", "other.test"])
        .check(&["HTTPRoute a shop.test"], &[("GRPCRoute a False HostnameConflict", &older("HTTPRoute a/http"))]);
    cluster()
        .route("a", "grpc", &["*.test"])
        .route("a", "http", &["shop.test"])
        .named("a", "http", "free", &["a.example"])
        .check(
            &["GRPCRoute a *.test", "HTTPRoute a a.example"],
            &[("HTTPRoute a False HostnameConflict", &older("GRPCRoute a/grpc"))],
        );
    // What is not accepted is in nobody's way.
    let mixed = cluster().route("a", "http", &["shop.test"]).route("a", "grpc", &["shop.test", "other.test"]);
    mixed.named("a", "http", "third", &["other.test"]).check(
        &["HTTPRoute a other.test", "HTTPRoute a shop.test"],
        &[("GRPCRoute a False HostnameConflict", &older("HTTPRoute a/http"))],
    );
    // Each listener accepts for itself; a host of the more specific one is not the other's.
    let two = Cluster::new().gateway("a", &["https:*.test", "https:shop.test"]);
    two.route("a", "http", &["shop.test"]).route("a", "grpc", &["shop.test", "other.test"]).check(
        &["GRPCRoute a other.test", "HTTPRoute a shop.test"],
        &[("GRPCRoute a True Accepted", "a host of listener https:shop.test is served by HTTPRoute a/http, which is older")],
    );
    // Of another Gateway.
    cluster()
        .route("a", "http", &["shop.test"])
        .gateway("b", &["https:"])
        .route("b", "grpc", &["shop.test"])
        .check(&["GRPCRoute b shop.test", "HTTPRoute a shop.test"], &[]);
}

/// Whoever asks chooses how long a request is, and those who write rules how many expressions it is held against: of whoever has the host, and of nobody else.
#[test]
fn long_requests_are_not_held_against_many_expressions() {
    use crate::effort::TooLong;
    let mut model = crate::model::Model::new("cluster.local", Issuers::default(), Arc::default());
    let of = |one: Value| {
        let mut cluster = Cluster::new().gateway("many", &["https:shop.test"]).http("many", &["shop.test"]);
        let route = cluster.objects.routes.get_mut(&Key::namespaced("many", "http")).unwrap();
        route.spec.rules[0].matches = read(json!(vec![one; 200]));
        cluster
    };
    let ask = |model: &mut crate::model::Model, host: &str, path: &str, header: &str| {
        let (parts, ()) = http::Request::get(path).header("h", header).body(()).unwrap().into_parts();
        let table = model.step().map_or_else(|| unreachable!("something has changed"), |step| step.table);
        table.route((Entrance::Ingress, true), host, parts.uri.path(), &parts).map(|route| route.is_some())
    };
    let expression = json!({"type": "RegularExpression", "name": "h", "value": "(x+)y"});
    let cases = [
        (json!({"path": {"type": "RegularExpression", "value": "/(x+)y"}}), "/#", ""),
        (json!({"headers": [expression]}), "/", "#"),
        (json!({"queryParams": [{"name": "h", "value": "y"}]}), "/?q=#", ""),
    ];
    for (one, path, header) in cases {
        for (length, expected) in [(5000, Ok(false)), (6000, Err(TooLong))] {
            model.set_gateway(planned(&of(one.clone()).objects));
            let long = |text: &str| text.replace('#', &"x".repeat(length));
            assert_eq!(ask(&mut model, "shop.test", &long(path), &long(header)), expected, "{one} {length}");
        }
    }
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let paths: Vec<Value> = (0..200)
        .map(|number| json!({"path": format!("/(x+){number}"), "pathType": "ImplementationSpecific", "backend": backend}))
        .collect();
    let metadata = json!({"namespace": "many", "name": "any", "annotations": {"nginx.ingress.kubernetes.io/use-regex": "true"}});
    let any = read(json!({"metadata": metadata, "spec": {"rules": [{"http": {"paths": paths}}]}}));
    for (host, expected) in [("shop.test", Ok(true)), ("other.test", Err(TooLong))] {
        model.set_ingress(&Key::namespaced("many", "any"), Some(&any));
        model.set_gateway(planned(&of(json!({"path": {"value": "/"}})).objects));
        assert_eq!(ask(&mut model, host, &format!("/{}", "x".repeat(6000)), ""), expected, "{host}");
    }
}
