#![allow(clippy::unwrap_used)]
use serde_json::{Value, json};

use super::*;
use crate::cluster::Cluster;
use crate::testing::node;

fn slice(name: &str, more: Value) -> Arc<ResourceSlice> {
    let mut spec = json!({"driver": "d", "nodeName": "n", "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1}});
    for (field, value) in more.as_object().unwrap() {
        spec[field] = value.clone();
    }
    Arc::new(serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap())
}

use k8s_openapi::api::resource::v1::ResourceSlice;

/// Devices `a`, `b`, ... of a model and a size each.
fn devices(models: &[(&str, i64)]) -> Value {
    let device = |(index, (model, size)): (usize, &(&str, i64))| {
        json!({"name": format!("dev{index}"), "attributes": {"model": {"string": model}, "v": {"version": "1.2.3"}},
            "capacity": {"memory": {"value": format!("{size}Gi")}}})
    };
    json!(models.iter().enumerate().map(device).collect::<Vec<_>>())
}

fn claim(spec: Value) -> Arc<ResourceClaim> {
    let claim = json!({"metadata": {"namespace": "a", "name": "c", "uid": "c"}, "spec": {"devices": spec}});
    Arc::new(serde_json::from_value(claim).unwrap())
}

fn class(name: &str) -> Option<Arc<DeviceClass>> {
    let spec = match name {
        "any" => json!({}),
        "big" => json!({"selectors": [{"cel": {"expression": "device.capacity['d'].memory.compareTo(quantity('8Gi')) >= 0"}}],
            "config": [{"opaque": {"driver": "d", "parameters": {"of": "class"}}}]}),
        _ => return None,
    };
    Some(Arc::new(serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap()))
}

struct World {
    pools: Pools,
    ledger: Ledger,
}

impl World {
    fn new(slices: &[Arc<ResourceSlice>]) -> Self {
        let mut pools = Pools::default();
        for slice in slices {
            pools.changed(slice.metadata.name.as_deref().unwrap(), None, Some(slice.clone()));
        }
        Self { pools, ledger: Ledger::default() }
    }

    fn of(devices: Value) -> Self {
        Self::new(&[slice("s", json!({"devices": devices}))])
    }

    fn allocate(&self, claims: &[Arc<ResourceClaim>]) -> Result<Vec<AllocationResult>, String> {
        let wanted: Result<Vec<Wanted>, _> = claims.iter().map(|claim| Wanted::new(claim.clone(), class)).collect();
        let wanted = wanted.map_err(|error| error.to_string())?;
        let mut cluster = Cluster::default();
        cluster.set_node(&node("n", json!({"labels": {"zone": "z"}})));
        let node = cluster.node("n").unwrap();
        let node = Place { name: &node.name, labels: &node.labels };
        let (offers, effort) = (self.pools.on(node), Effort::default());
        let wanted: Vec<&Wanted> = wanted.iter().collect();
        let found = Search::new(&wanted, &offers, &self.ledger, node, &effort).run()?;
        Ok(found.results(&wanted, &offers, node.name))
    }

    /// The devices that a claim gets, each with its request.
    fn check(&self, spec: Value, expected: Result<&[&str], &str>) {
        let found = self.allocate(&[claim(spec.clone())]).map(|found| shown(&found[0]));
        let expected = expected.map(|all| all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>());
        assert_eq!(found, expected.map_err(str::to_owned), "{spec}");
    }
}

fn shown(allocation: &AllocationResult) -> Vec<String> {
    let results = allocation.devices.as_ref().unwrap().results.as_ref().unwrap();
    results.iter().map(|one| format!("{}={}", one.request, one.device)).collect()
}

fn request(name: &str, more: Value) -> Value {
    let mut exactly = json!({"deviceClassName": "any"});
    for (field, value) in more.as_object().unwrap() {
        exactly[field] = value.clone();
    }
    json!({"name": name, "exactly": exactly})
}

fn selector(expression: &str) -> Value {
    json!([{"cel": {"expression": expression}}])
}

const NONE: Result<&[&str], &str> = Err("cannot allocate all claims");

/// KEP-4381: "Device requests", by class, selector, count and "All".
#[test]
fn devices_are_selected() {
    let world = World::of(devices(&[("x", 4), ("y", 8), ("x", 16)]));
    let check = |request: Value, expected| world.check(json!({"requests": [request]}), expected);
    check(request("r", json!({})), Ok(&["r=dev0"]));
    check(request("r", json!({"count": 2})), Ok(&["r=dev0", "r=dev1"]));
    check(request("r", json!({"count": 4})), NONE);
    check(request("r", json!({"deviceClassName": "big", "allocationMode": "All"})), Ok(&["r=dev1", "r=dev2"]));
    check(request("r", json!({"deviceClassName": "none"})), Err("request r: device class none does not exist"));
    let select = |expression| request("r", json!({"selectors": selector(expression)}));
    check(select("device.driver == 'd' && device.attributes['d'].model == 'y'"), Ok(&["r=dev1"]));
    check(
        select("device.attributes['d'].v.isGreaterThan(semver('1.0.0')) && device.attributes['d'].model == 'x'"),
        Ok(&["r=dev0"]),
    );
    check(select("has(device.attributes['other'].model)"), NONE);
    let missing = world.allocate(&[claim(json!({"requests": [select("device.attributes['d'].nothing == 1")]}))]);
    assert!(missing.unwrap_err().starts_with("claim a/c: selector #0 on device d/dev0: CEL runtime error: "));
    let wrong = world.allocate(&[claim(json!({"requests": [select("device.")]}))]);
    assert!(wrong.unwrap_err().starts_with("claim a/c: selector #0: CEL compile error: "));
}

/// KEP-4381: "Constraints": what the devices of a claim have in common; KEP-4816: the first alternative that can be met.
#[test]
fn choices_are_taken_back_where_they_lead_nowhere() {
    let world = World::of(devices(&[("x", 4), ("y", 8), ("y", 16)]));
    let two = || json!([request("r", json!({})), request("s", json!({}))]);
    world.check(json!({"requests": two(), "constraints": [{"matchAttribute": "d/model"}]}), Ok(&["r=dev1", "s=dev2"]));
    world.check(json!({"requests": two(), "constraints": [{"distinctAttribute": "d/model"}]}), Ok(&["r=dev0", "s=dev1"]));
    world.check(json!({"requests": two(), "constraints": [{"matchAttribute": "d/none"}]}), NONE);
    world.check(
        json!({"requests": two(), "constraints": [{"matchAttribute": "d/none", "requests": ["t"]}]}),
        Ok(&["r=dev0", "s=dev1"]),
    );
    let first = json!({"name": "r", "firstAvailable": [{"name": "many", "deviceClassName": "any", "count": 5},
        {"name": "big", "deviceClassName": "big"}, {"name": "any", "deviceClassName": "any"}]});
    world.check(json!({"requests": [first, request("s", json!({"deviceClassName": "big"}))]}), Ok(&["r/big=dev1", "s=dev2"]));
}

/// A driver's pool is whole when it has as many slices of the latest generation as they say; devices of the others are not given.
#[test]
fn pools_have_generations() {
    let pool = |generation: i64, count: i64, name: &str| json!({"pool": {"name": "p", "generation": generation, "resourceSliceCount": count}, "devices": [{"name": name}]});
    let all = || json!({"requests": [request("r", json!({"allocationMode": "All"}))]});
    let one = || json!({"requests": [request("r", json!({}))]});
    World::new(&[slice("s", pool(1, 1, "old")), slice("t", pool(2, 1, "new"))]).check(all(), Ok(&["r=new"]));
    let updated = World::new(&[slice("s", pool(1, 1, "old")), slice("t", pool(2, 2, "new"))]);
    updated.check(one(), NONE);
    let text = "claim a/c, request r: asks for all devices, but resource pool d/p is currently being updated";
    updated.check(all(), Err(text));
    let twice = World::new(&[slice("s", pool(1, 2, "same")), slice("t", pool(1, 2, "same"))]);
    twice.check(one(), Err("cannot allocate all claims: invalid resource pools were encountered"));
    // A slice that goes takes its devices along.
    let mut world = World::new(&[slice("s", pool(1, 1, "x"))]);
    world.pools.changed("s", Some(&slice("s", pool(1, 1, "x"))), None);
    world.check(one(), NONE);
}

/// The slices for the node are chosen first, and generations compared among those (upstream's `GatherPools`): whoever has the credentials of
/// another node, and so may publish slices that name it, takes nothing away here.
#[test]
fn slices_of_other_nodes_take_nothing_away() {
    let of = |place: Value, generation: i64, count: i64, more: Value| {
        let mut spec = json!({"pool": {"name": "p", "generation": generation, "resourceSliceCount": count}, "nodeName": null});
        for part in [place, more] {
            spec.as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
        }
        spec
    };
    let device = |name: &str| json!({"devices": [{"name": name}]});
    let (here, there) = (|| json!({"nodeName": "n"}), || json!({"nodeName": "m"}));
    let all = || json!({"requests": [request("r", json!({"allocationMode": "All"}))]});
    let hostile = [
        of(there(), 9, 1, device("x")),
        of(there(), 1, 1, device("x")),
        of(there(), 9, 7, json!({"sharedCounters": [{"name": "c", "counters": {"memory": {"value": "1"}}}]})),
    ];
    for hostile in hostile {
        let hostile = slice("hostile", hostile);
        World::new(&[slice("own", of(here(), 1, 1, device("x"))), hostile.clone()]).check(all(), Ok(&["r=x"]));
        // Of a pool for several nodes there may be slices that are not for this one.
        let zone = |zone: &str| {
            let term = json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]});
            json!({"nodeSelector": {"nodeSelectorTerms": [term]}})
        };
        let wide = [slice("a", of(zone("z"), 1, 2, device("x"))), slice("b", of(zone("y"), 1, 2, device("y"))), hostile];
        World::new(&wide).check(all(), Ok(&["r=x"]));
    }
    // What is newer, and for several nodes, makes the others obsolete all the same.
    let term = json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": ["y"]}]});
    let newer = of(json!({"nodeSelector": {"nodeSelectorTerms": [term]}}), 2, 1, device("y"));
    World::new(&[slice("a", of(json!({"allNodes": true}), 1, 2, device("x"))), slice("b", newer)]).check(all(), NONE);
    // Slices that name their nodes may be one pool: it is whole with all of them.
    let both = [slice("a", of(here(), 1, 2, device("x"))), slice("b", of(there(), 1, 2, device("y")))];
    World::new(&both).check(all(), Ok(&["r=x"]));
}

/// A pool with a slice for each of many nodes costs each node its own slice: what devices elsewhere take of counters is known once for all.
#[test]
fn a_pool_over_many_nodes_is_known_once() {
    const NODES: usize = 2000;
    let pool = json!({"name": "p", "generation": 1, "resourceSliceCount": NODES});
    let slices: Vec<_> = (0..NODES)
        .map(|number| {
            let more = json!({"pool": pool, "nodeName": format!("n{number}"), "devices": [{"name": format!("d{number}")}]});
            slice(&format!("s{number}"), more)
        })
        .collect();
    let world = World::new(&slices);
    let labels = None;
    let all: Vec<_> =
        (0..NODES).map(|number| world.pools.on(Place { name: &format!("n{number}"), labels: &labels }).remove(0)).collect();
    for (number, offer) in all.iter().enumerate() {
        assert_eq!((offer.slices.len(), offer.incomplete), (1, false));
        let named = |number: usize| offer.device(&format!("d{number}")).map(|device| device.name.clone());
        assert_eq!((named(number), named(NODES - 1)), (Some(format!("d{number}")), Some(format!("d{}", NODES - 1))));
        assert!(offer.shares_names_with(&all[0]), "devices elsewhere are kept once");
    }
}

/// What one claim has another one does not get, unless it is an administrator's (KEP-5018).
#[test]
fn devices_are_taken() {
    let mut world = World::of(devices(&[("x", 4), ("x", 8)]));
    let one = || json!({"requests": [request("r", json!({}))]});
    let first = world.allocate(&[claim(one())]).unwrap().remove(0);
    world.ledger.choose("first", &first);
    world.check(one(), Ok(&["r=dev1"]));
    world.check(json!({"requests": [request("r", json!({"count": 2}))]}), NONE);
    world.check(json!({"requests": [request("r", json!({"allocationMode": "All"}))]}), NONE);
    let admin = json!({"requests": [request("r", json!({"allocationMode": "All", "adminAccess": true}))]});
    world.check(admin.clone(), Ok(&["r=dev0", "r=dev1"]));
    let watched = world.allocate(&[claim(admin)]).unwrap().remove(0);
    world.ledger.choose("admin", &watched);
    world.check(one(), Ok(&["r=dev1"]));
    // Older news than what was written here change nothing.
    let at = |version: &str, allocation: Option<&AllocationResult>| {
        let mut claim = claim(one()).as_ref().clone();
        (claim.metadata.uid, claim.metadata.resource_version) = (Some("first".to_owned()), Some(version.to_owned()));
        claim.status = Some(serde_json::from_value(json!({"allocation": allocation})).unwrap());
        claim
    };
    world.ledger.settle("first", Some(&at("7", Some(&first))));
    world.ledger.observe("first", Some(&at("6", None)));
    world.check(one(), Ok(&["r=dev1"]));
    world.ledger.observe("first", Some(&at("8", None)));
    world.check(one(), Ok(&["r=dev0"]));
}

/// Upstream's allocator tests `too-many-devices-single-request`, `too-many-devices-total` and `too-many-devices-with-subrequests`.
#[test]
fn a_claim_is_told_that_it_asks_for_too_many() {
    let world = World::of(devices(&[("x", 4); 33]));
    let check = |requests: Value, count: usize| {
        let why = format!("claim a/c: number of requested devices {count} exceeds the claim limit of 32");
        world.check(json!({"requests": requests}), Err(&why));
    };
    let count = |name: &str, count: usize| request(name, json!({"count": count}));
    check(json!([count("r", 500)]), 500);
    check(json!([count("r", 17), count("s", 16)]), 33);
    check(json!([request("r", json!({"allocationMode": "All"}))]), 33);
    let first = |counts: [usize; 2]| {
        let forms = counts.map(|count| json!({"name": format!("n{count}"), "deviceClassName": "any", "count": count}));
        json!([{"name": "r", "firstAvailable": forms}])
    };
    check(first([50, 40]), 40);
    world.check(json!({"requests": first([40, 1])}), Ok(&["r/n1=dev0"]));
}

/// KEP-5055: a taint keeps devices from claims that do not tolerate it.
#[test]
fn taints_are_tolerated() {
    let taint = |effect: &str| json!([{"name": "t", "taints": [{"key": "k", "value": "v", "effect": effect}]}]);
    let tolerant = json!({"tolerations": [{"key": "k", "operator": "Exists"}]});
    for (effect, keeps) in [("NoSchedule", true), ("NoExecute", true), ("None", false)] {
        let world = World::of(taint(effect));
        world.check(json!({"requests": [request("r", json!({}))]}), if keeps { NONE } else { Ok(&["r=t"]) });
        world.check(json!({"requests": [request("r", tolerant.clone())]}), Ok(&["r=t"]));
    }
}

/// KEP-4815: "a device can only be allocated if the counters that it consumes are available".
#[test]
fn parts_of_a_device_share_its_counters() {
    let part = |name: &str, amount: &str| json!({"name": name, "consumesCounters": [{"counterSet": "gpu", "counters": {"memory": {"value": amount}}}]});
    let pool = json!({"name": "p", "generation": 1, "resourceSliceCount": 2});
    let counters = json!({"pool": pool, "sharedCounters": [{"name": "gpu", "counters": {"memory": {"value": "40Gi"}}}]});
    let parts = json!({"pool": pool, "devices": [part("whole", "40Gi"), part("half", "20Gi"), part("other", "20Gi")]});
    let mut world = World::new(&[slice("s", counters), slice("t", parts)]);
    let count = |count: i64| json!({"requests": [request("r", json!({"count": count}))]});
    world.check(count(1), Ok(&["r=whole"]));
    world.check(count(2), Ok(&["r=half", "r=other"]));
    world.check(count(3), NONE);
    let half = request("r", json!({"selectors": selector("device.driver == 'd'"), "count": 2}));
    let taken = world.allocate(&[claim(json!({"requests": [half]}))]).unwrap().remove(0);
    world.ledger.choose("x", &taken);
    world.check(count(1), NONE);
}

/// KEP-5075: "a device that allows multiple allocations" is shared until its capacity is consumed; each share has an id of its own.
#[test]
fn devices_are_shared_by_capacity() {
    let memory = json!({"value": "10Gi", "requestPolicy": {"default": "2Gi", "validValues": ["2Gi", "4Gi", "8Gi"]}});
    let shared =
        json!({"name": "s", "allowMultipleAllocations": true, "attributes": {"id": {"int": 1}}, "capacity": {"memory": memory}});
    let whole = json!({"name": "w", "capacity": {"memory": {"value": "6Gi"}}});
    let mut world = World::of(json!([shared, whole]));
    let asks = |amount: &str, count: i64| request("r", json!({"count": count, "capacity": {"requests": {"memory": amount}}}));
    let one = |amount: &str| json!({"requests": [asks(amount, 1)]});
    // Several shares for one request, and what is not shared for what is left.
    world.check(json!({"requests": [asks("3Gi", 2)]}), Ok(&["r=s", "r=s"]));
    world.check(json!({"requests": [asks("3Gi", 3)]}), Ok(&["r=s", "r=s", "r=w"]));
    world.check(json!({"requests": [asks("3Gi", 4)]}), NONE);
    world.check(one("9Gi"), NONE);
    // KEP-5075: "distinctAttribute" keeps a claim from two shares of one device.
    let distinct = json!({"requests": [asks("1Gi", 2)], "constraints": [{"distinctAttribute": "d/id"}]});
    world.check(distinct, NONE);
    let first = world.allocate(&[claim(one("7Gi"))]).unwrap().remove(0);
    let result = first.devices.clone().unwrap().results.unwrap().remove(0);
    assert_eq!(result.consumed_capacity.unwrap()["memory"].0, "8Gi");
    assert_eq!(result.share_id.unwrap().len(), 36);
    world.ledger.choose("first", &first);
    world.check(one("3Gi"), Ok(&["r=w"]));
    world.check(json!({"requests": [request("r", json!({}))]}), Ok(&["r=s"]));
    world.ledger.settle("first", None);
    world.check(one("3Gi"), Ok(&["r=s"]));
}

/// KEP-5007: devices without binding conditions are preferred; conditions are copied to the result, and `bindsToNode` fixes the node.
#[test]
fn devices_bind_to_nodes() {
    let slow =
        json!({"name": "slow", "bindsToNode": true, "bindingConditions": ["ready"], "bindingFailureConditions": ["broken"]});
    let devices = json!({"nodeName": null, "allNodes": true, "devices": [slow, {"name": "fast"}]});
    let world = World::new(&[slice("s", devices)]);
    world.check(json!({"requests": [request("r", json!({}))]}), Ok(&["r=fast"]));
    let both = world.allocate(&[claim(json!({"requests": [request("r", json!({"count": 2}))]}))]).unwrap().remove(0);
    let field = &both.node_selector.unwrap().node_selector_terms[0].match_fields.clone().unwrap()[0];
    assert_eq!((field.key.as_str(), field.values.clone().unwrap()), ("metadata.name", vec!["n".to_owned()]));
    let result = both.devices.unwrap().results.unwrap().remove(1);
    assert_eq!(
        (result.binding_conditions, result.binding_failure_conditions),
        (Some(vec!["ready".to_owned()]), Some(vec!["broken".to_owned()]))
    );
}

/// KEP-4381: where an allocation can be used, and what its driver is told of it.
#[test]
fn results_say_where_and_how() {
    let zone = json!({"nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["z"]}]}]});
    let elsewhere = json!({"nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["y"]}]}]});
    let world = |nodes: Value| {
        World::new(&[slice("s", json!({"nodeName": null, "nodeSelector": nodes, "devices": devices(&[("x", 8)])}))])
    };
    world(elsewhere).check(json!({"requests": [request("r", json!({}))]}), NONE);
    let config = json!([{"opaque": {"driver": "d", "parameters": {"of": "claim"}}},
        {"requests": ["other"], "opaque": {"driver": "d", "parameters": {}}}]);
    let spec = json!({"requests": [request("r", json!({"deviceClassName": "big"}))], "config": config});
    let found = world(zone.clone()).allocate(&[claim(spec)]).unwrap().remove(0);
    assert_eq!(serde_json::to_value(&found.node_selector).unwrap(), zone);
    let config = serde_json::to_value(found.devices.unwrap().config).unwrap();
    let sources: Vec<_> =
        config.as_array().unwrap().iter().map(|one| (&one["source"], &one["opaque"]["parameters"]["of"])).collect();
    assert_eq!(sources, [(&json!("FromClass"), &json!("class")), (&json!("FromClaim"), &json!("claim"))]);
    let local =
        World::of(devices(&[("x", 8)])).allocate(&[claim(json!({"requests": [request("r", json!({}))]}))]).unwrap().remove(0);
    let field = &local.node_selector.unwrap().node_selector_terms[0].match_fields.clone().unwrap()[0];
    assert_eq!((field.key.as_str(), field.values.clone().unwrap()), ("metadata.name", vec!["n".to_owned()]));
    let each = json!({"nodeName": null, "perDeviceNodeSelection": true, "devices": [{"name": "far", "nodeName": "m"}, {"name": "near", "allNodes": true}]});
    World::new(&[slice("s", each)]).check(json!({"requests": [request("r", json!({}))]}), Ok(&["r=near"]));
}

/// A thousand devices that are alike, and a constraint that none of the choices meets: the search ends.
#[test]
fn hostile_claims_end() {
    let slices: Vec<_> = (0..8)
        .map(|index| {
            let device =
                |at: usize| json!({"name": format!("d{index}-{at}"), "attributes": {"m": {"string": format!("{}", at % 2)}}});
            let pool = json!({"name": "p", "generation": 1, "resourceSliceCount": 8});
            slice(&format!("s{index}"), json!({"pool": pool, "devices": (0..128).map(device).collect::<Vec<_>>()}))
        })
        .collect();
    let world = World::new(&slices);
    let spec = json!({"requests": [request("r", json!({"count": 8}))], "constraints": [{"distinctAttribute": "d/m"}]});
    world.check(spec, Err("cannot allocate all claims: given up after trying 100001 devices"));
}

/// A pod may ask for as many devices as it has claims, with 32 each: the search takes no more of a thread's stack for more of them.
#[test]
fn many_devices_take_no_stack() {
    let shared = json!([{"name": "dev", "allowMultipleAllocations": true}]);
    let (world, claims) = (World::of(shared), vec![claim(json!({"requests": [request("r", json!({"count": 32}))]})); 300]);
    let all = |claims: &[Arc<ResourceClaim>]| -> Result<usize, String> {
        let found = world.allocate(claims)?;
        Ok(found.iter().map(|one| shown(one).len()).sum::<usize>())
    };
    let none =
        [claims.as_slice(), &[claim(json!({"requests": [request("r", json!({"selectors": selector("false")}))]}))]].concat();
    let wanted: Vec<Wanted> = claims.iter().map(|claim| Wanted::new(claim.clone(), class).unwrap()).collect();
    let mut cluster = Cluster::default();
    cluster.set_node(&node("n", json!({})));
    let node = cluster.node("n").unwrap();
    let node = Place { name: &node.name, labels: &node.labels };
    let offers = world.pools.on(node);
    let (wanted, ledger): (Vec<&Wanted>, _) = (wanted.iter().collect(), &world.ledger);
    std::thread::scope(|scope| {
        let search = || Search::new(&wanted, &offers, ledger, node, &Effort::default()).run().map(|found| found.devices());
        let small = std::thread::Builder::new().stack_size(128 << 10);
        assert_eq!(small.spawn_scoped(scope, search).unwrap().join().unwrap(), Ok(300 * 32));
    });
    assert_eq!(all(&claims), Ok(300 * 32));
    let given_up = all(&none).unwrap_err();
    assert!(given_up.starts_with("cannot allocate all claims"), "{given_up}");
}
