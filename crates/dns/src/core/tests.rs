#![allow(clippy::unwrap_used)]

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::*;

fn service(state: &State, name: &str, spec: Value, slices: &[Value]) {
    let service: Service = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
    let slices: Vec<Box<EndpointSlice>> =
        slices.iter().map(|slice| Box::new(serde_json::from_value(slice.clone()).unwrap())).collect();
    state.update("prod", name, Some(&service), &slices);
}

fn state() -> State {
    let state = State::default();
    ["prod", "bare"].iter().for_each(|namespace| assert!(state.set_namespace(namespace, true)));
    let ports = json!([{"name": "http", "port": 80}, {"name": "dns", "protocol": "UDP", "port": 53}]);
    service(&state, "web", json!({"clusterIPs": ["10.43.0.7", "fd43::7"], "ports": ports}), &[]);
    let slice = json!({
        "metadata": {}, "addressType": "IPv4", "ports": [{"name": "sql", "protocol": "TCP", "port": 5432}],
        "endpoints": [
            {"addresses": ["10.42.0.5"], "hostname": "db-0", "conditions": {"ready": true}},
            {"addresses": ["10.42.0.6"]},
            {"addresses": ["10.42.0.9"], "hostname": "db-2", "conditions": {"ready": false}},
        ]
    });
    let headless = json!({"clusterIP": "None", "ports": [{"name": "sql", "port": 5432}]});
    service(&state, "db", headless.clone(), std::slice::from_ref(&slice));
    service(&state, "empty", headless, &[]);
    let published = json!({"clusterIP": "None", "publishNotReadyAddresses": true});
    service(&state, "peers", published, &[slice]);
    let alias = |name: &str| json!({"type": "ExternalName", "externalName": name});
    service(&state, "out", alias("example.com"), &[]);
    service(&state, "in", alias("web.prod.svc.cluster.local"), &[]);
    service(&state, "loop", alias("loop.prod.svc.cluster.local"), &[]);
    service(&state, "pending", json!({"clusterIP": "", "ports": []}), &[]);
    state
}

/// The answer as text: code unless NOERROR, records, alias; `forward` when it is not ours.
fn check(question: &str, expected: &[&str]) {
    let (name, kind) = question.split_once(' ').unwrap();
    let zone = Zone::new("Cluster.Local.").unwrap();
    let mut name = Name::from_ascii(name).unwrap();
    name.set_fqdn(true);
    let lines = match zone.answer(&name, kind.parse().unwrap(), &state(), Room::new(1232, 1)) {
        None => vec!["forward".to_owned()],
        Some(answer) => {
            let mut lines: Vec<String> = Vec::new();
            if answer.code == ResponseCode::NXDomain {
                lines.push("NXDOMAIN".to_owned());
            }
            lines.extend(answer.answers.iter().map(|record| format!("{} {}", record.record_type(), record.data)));
            lines.extend(answer.additionals.iter().map(|record| format!("+ {} {}", record.name, record.data)));
            lines.extend(answer.alias.iter().map(|alias| format!("-> {alias}")));
            assert_eq!(answer.answers.is_empty(), !answer.authorities.is_empty(), "a SOA says how long nothing holds");
            assert!(answer.answers.iter().all(|record| record.ttl == TTL));
            lines
        }
    };
    assert_eq!(lines, expected, "{question}");
}

#[test]
fn services() {
    check("web.prod.svc.cluster.local A", &["A 10.43.0.7"]);
    check("WEB.Prod.svc.CLUSTER.local AAAA", &["AAAA fd43::7"]);
    check("web.prod.svc.cluster.local TXT", &[]);
    check("prod.svc.cluster.local A", &[]);
    check("bare.svc.cluster.local A", &[]);
    check("no.bare.svc.cluster.local A", &["NXDOMAIN"]);
    check("other.svc.cluster.local A", &["NXDOMAIN"]);
    check("no.prod.svc.cluster.local A", &["NXDOMAIN"]);
    check("pending.prod.svc.cluster.local A", &["NXDOMAIN"]);
    check("web.prod.svc.cluster.local.cluster.local A", &["NXDOMAIN"]);
    check("www.example.com A", &["forward"]);
    check("xcluster.local A", &["forward"]);
}

#[test]
fn ports() {
    let web = "web.prod.svc.cluster.local.";
    let addresses = ["+ web.prod.svc.cluster.local. 10.43.0.7", "+ web.prod.svc.cluster.local. fd43::7"];
    check("_http._tcp.web.prod.svc.cluster.local SRV", &[&format!("SRV 0 100 80 {web}"), addresses[0], addresses[1]]);
    check("_dns._udp.web.prod.svc.cluster.local SRV", &[&format!("SRV 0 100 53 {web}"), addresses[0], addresses[1]]);
    check("_dns._tcp.web.prod.svc.cluster.local SRV", &["NXDOMAIN"]);
    check("_._.web.prod.svc.cluster.local A", &["NXDOMAIN"]);
    check("_http._tcp.web.prod.svc.cluster.local A", &["A 10.43.0.7"]);
    check(
        "_sql._tcp.db.prod.svc.cluster.local SRV",
        &[
            "SRV 0 100 5432 10-42-0-6.db.prod.svc.cluster.local.",
            "SRV 0 100 5432 db-0.db.prod.svc.cluster.local.",
            "+ 10-42-0-6.db.prod.svc.cluster.local. 10.42.0.6",
            "+ db-0.db.prod.svc.cluster.local. 10.42.0.5",
        ],
    );
}

#[test]
fn headless_services() {
    check("db.prod.svc.cluster.local A", &["A 10.42.0.6", "A 10.42.0.5"]);
    check("db.prod.svc.cluster.local AAAA", &[]);
    check("db-0.db.prod.svc.cluster.local A", &["A 10.42.0.5"]);
    check("10-42-0-6.db.prod.svc.cluster.local A", &["A 10.42.0.6"]);
    check("db-2.db.prod.svc.cluster.local A", &["NXDOMAIN"]);
    check("db-2.peers.prod.svc.cluster.local A", &["A 10.42.0.9"]);
    check("empty.prod.svc.cluster.local A", &["NXDOMAIN"]);
    check("db-0.web.prod.svc.cluster.local A", &["NXDOMAIN"]);
}

#[test]
fn aliases() {
    check("out.prod.svc.cluster.local A", &["CNAME example.com.", "-> example.com."]);
    check("out.prod.svc.cluster.local CNAME", &["CNAME example.com."]);
    check("in.prod.svc.cluster.local A", &["CNAME web.prod.svc.cluster.local.", "A 10.43.0.7"]);
    check("loop.prod.svc.cluster.local A", &["CNAME loop.prod.svc.cluster.local."; MAX_ALIASES + 1]);
}

#[test]
fn pods_and_reverse() {
    check("10-42-0-5.prod.pod.cluster.local A", &["A 10.42.0.5"]);
    check("10-42-0-5.prod.pod.cluster.local AAAA", &[]);
    check("fd42--5.prod.pod.cluster.local AAAA", &["AAAA fd42::5"]);
    check("nonsense.prod.pod.cluster.local A", &["NXDOMAIN"]);
    // `findPods` of CoreDNS: "namespace does not exist".
    check("10-42-0-5.bare.pod.cluster.local A", &["A 10.42.0.5"]);
    check("10-42-0-5.other.pod.cluster.local A", &["NXDOMAIN"]);
    check("bare.pod.cluster.local A", &[]);
    check("other.pod.cluster.local A", &["NXDOMAIN"]);
    check("7.0.43.10.in-addr.arpa PTR", &["PTR web.prod.svc.cluster.local."]);
    check("9.0.42.10.in-addr.arpa PTR", &["PTR db-2.peers.prod.svc.cluster.local."]);
    check("8.8.8.8.in-addr.arpa PTR", &["forward"]);
}

#[test]
fn zone() {
    check("dns-version.cluster.local TXT", &["TXT 1.1.0"]);
    check("cluster.local SOA", &["SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5"]);
    check("cluster.local NS", &["NS ns.dns.cluster.local."]);
    check("cluster.local A", &[]);
}

#[test]
fn a_service_that_goes_takes_its_names_along() {
    let state = state();
    let names = |state: &State| state.names_of(IpAddr::from([10, 43, 0, 7]), 9).len();
    assert_eq!(names(&state), 1);
    for name in ["web", "db", "empty", "peers", "out", "in", "loop"] {
        state.update::<Box<EndpointSlice>>("prod", name, None, &[]);
    }
    assert_eq!(names(&state), 0);
    assert!(state.has_namespace("prod") && !state.set_namespace("prod", true));
    assert!(state.set_namespace("prod", false) && !state.has_namespace("prod"));
}

#[test]
fn changes_that_change_no_answer() {
    let state = state();
    let changes = |name: &str, spec: Value, slices: &[Value]| {
        let service: Option<Service> =
            (!spec.is_null()).then(|| serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap());
        let slices: Vec<Box<EndpointSlice>> =
            slices.iter().map(|slice| Box::new(serde_json::from_value(slice.clone()).unwrap())).collect();
        state.update("prod", name, service.as_ref(), &slices)
    };
    let slice =
        |address: &str| json!({"metadata": {}, "addressType": "IPv4", "ports": [], "endpoints": [{"addresses": [address]}]});
    let (cluster, headless) = (json!({"clusterIP": "10.43.0.20"}), json!({"clusterIP": "None"}));
    assert!(changes("new", cluster.clone(), &[]));
    assert!(!changes("new", cluster.clone(), &[slice("10.42.0.1")]), "nobody is told the endpoints behind an address");
    assert!(changes("new", headless.clone(), &[slice("10.42.0.1")]));
    assert!(!changes("new", headless.clone(), &[slice("10.42.0.1")]));
    assert!(changes("new", headless, &[slice("10.42.0.2")]));
    assert!(changes("new", json!(null), &[]));
    assert!(!changes("new", json!(null), &[]));
}

/// Whoever makes a service chooses how many ports and endpoints it has: an answer has what there is room for, and one record more says that there is more.
#[test]
fn an_answer_is_no_longer_than_a_message() {
    const MANY: usize = 20_000;
    let (state, zone) = (State::default(), Zone::new("cluster.local").unwrap());
    let ports: Vec<Value> = (0..MANY).map(|number| json!({"name": format!("p{number}"), "port": number + 1})).collect();
    let endpoints: Vec<Value> =
        (0..1000).map(|index| json!({"addresses": [format!("10.42.{}.{}", index / 250, index % 250)]})).collect();
    let slice = json!({"metadata": {}, "addressType": "IPv4", "ports": ports, "endpoints": endpoints});
    let again = json!({"metadata": {}, "addressType": "IPv4", "ports": [{"name": "p7", "port": 8}], "endpoints": endpoints});
    service(&state, "many", json!({"clusterIP": "None"}), &[slice.clone(), slice, again]);
    service(&state, "wide", json!({"clusterIP": "10.43.0.8", "ports": ports}), &[]);
    for number in 0..100 {
        let same = json!({"metadata": {}, "addressType": "IPv4", "ports": [], "endpoints": [{"addresses": ["10.44.0.1"]}]});
        service(&state, &format!("s{number}"), json!({"clusterIP": "None"}), &[same]);
    }
    let ask = |name: &str, kind, first| {
        let name = Name::from_ascii(name).unwrap();
        zone.answer(&name, kind, &state, Room::new(1232, first)).unwrap()
    };
    let most = 1232 / RECORD + 1;
    for (name, kind) in [
        ("many.prod.svc.cluster.local.", RecordType::SRV),
        ("many.prod.svc.cluster.local.", RecordType::A),
        ("_p7._tcp.many.prod.svc.cluster.local.", RecordType::SRV),
        ("wide.prod.svc.cluster.local.", RecordType::SRV),
        ("1.0.44.10.in-addr.arpa.", RecordType::PTR),
    ] {
        let answer = ask(name, kind, 0);
        assert_eq!((answer.answers.len(), answer.additionals.len() <= most), (most, true), "{name} {kind}");
        let other = ask(name, kind, 500);
        let endpoints = name.contains("many") && kind == RecordType::A;
        assert!(!endpoints || answer.answers.iter().all(|record| !other.answers.contains(record)), "others the next time");
    }
    let all =
        zone.answer(&Name::from_ascii("many.prod.svc.cluster.local.").unwrap(), RecordType::A, &state, Room::new(65_535, 3));
    assert_eq!(all.unwrap().answers.len(), 1000);
    // One port by its name, and one endpoint.
    let one = zone.answer(
        &Name::from_ascii("_p9._tcp.many.prod.svc.cluster.local.").unwrap(),
        RecordType::SRV,
        &state,
        Room::new(65_535, 3),
    );
    assert_eq!(one.unwrap().answers.len(), 1000);
    assert_eq!(ask("_p9._tcp.wide.prod.svc.cluster.local.", RecordType::SRV, 0).answers.len(), 1);
    assert_eq!(ask("10-42-3-7.many.prod.svc.cluster.local.", RecordType::A, 0).answers.len(), 1);
    assert_eq!(ask("_p9._udp.many.prod.svc.cluster.local.", RecordType::SRV, 0).code, ResponseCode::NXDomain);
}

/// What does not fill an answer is not gone through for it: endpoints without ports, those of one hostname or address, ports of one number, and the family that is not
/// asked for.
#[test]
fn an_answer_is_bounded_by_whatever_grows() {
    const MANY: usize = 50_000;
    let (state, zone) = (State::default(), Zone::new("cluster.local").unwrap());
    let slice = |ports: Vec<Value>, endpoint: &dyn Fn(usize) -> Value| {
        let endpoints: Vec<Value> = (0..MANY).map(endpoint).collect();
        json!({"metadata": {}, "addressType": "IPv4", "ports": ports, "endpoints": endpoints})
    };
    let port = |name: usize, number: usize| json!({"name": format!("p{name}"), "port": number});
    let ports = |count: usize| (0..count).map(|number| port(number, number + 1)).collect();
    let address = |index: usize| format!("10.{}.{}.{}", index / 62_500, index / 250 % 250, index % 250);
    let each = |index: usize| json!({"addresses": [address(index)]});
    let of_one_name = |index: usize| json!({"addresses": [address(index)], "hostname": "one"});
    let at_one_address = |index: usize| json!({"addresses": ["10.42.0.1"], "hostname": format!("h{index}")});
    let six =
        json!({"metadata": {}, "addressType": "IPv6", "ports": [], "endpoints": [{"addresses": ["fd42::1"], "hostname": "one"}]});
    let headless = || json!({"clusterIP": "None"});
    service(&state, "portless", headless(), &[slice(Vec::new(), &each)]);
    service(&state, "name", headless(), &[slice(ports(3), &of_one_name), six.clone()]);
    service(&state, "address", headless(), &[slice(ports(3), &at_one_address)]);
    service(&state, "number", headless(), &[slice((0..20_000).map(|name| port(name, 80)).collect(), &each)]);
    service(&state, "each", headless(), &[slice(ports(3), &each), six]);
    let most = 65_535 / RECORD + 1;
    let cases = [
        ("portless", RecordType::SRV, 0, 0),
        ("portless", RecordType::A, most, 0),
        ("portless", RecordType::AAAA, 0, 0),
        ("name", RecordType::SRV, 3, most),
        ("_p1._tcp.name", RecordType::SRV, 1, most),
        ("one.name", RecordType::A, most, 0),
        ("one.name", RecordType::AAAA, 1, 0),
        ("one.name", RecordType::TXT, 0, 0),
        ("address", RecordType::A, 1, 0),
        ("address", RecordType::AAAA, 0, 0),
        ("h7.address", RecordType::AAAA, 0, 0),
        ("address", RecordType::SRV, most, most.div_ceil(3)),
        ("number", RecordType::SRV, most, most),
        ("_p7._tcp.number", RecordType::AAAA, 0, 0),
        ("each", RecordType::SRV, most, most.div_ceil(3)),
        ("each", RecordType::AAAA, 1, 0),
        ("each", RecordType::ANY, most, 0),
        ("each", RecordType::TXT, 0, 0),
    ];
    let ask = |name: &str, kind| {
        let question = Name::from_ascii(format!("{name}.prod.svc.cluster.local.")).unwrap();
        zone.answer(&question, kind, &state, Room::new(65_535, 7)).unwrap()
    };
    for (name, kind, answers, additionals) in cases {
        let answer = ask(name, kind);
        assert_eq!(answer.code, ResponseCode::NoError, "{name} {kind}");
        assert_eq!((answer.answers.len(), answer.additionals.len()), (answers, additionals), "{name} {kind}");
        let target = |record: &Record| match &record.data {
            RData::SRV(srv) => Some(srv.target.clone()),
            _ => None,
        };
        let names: HashSet<Name> = answer.answers.iter().filter_map(target).collect();
        assert!(answer.additionals.iter().all(|record| names.contains(&record.name)), "{name}");
    }
}
