#![allow(clippy::unwrap_used)]
use grpc::Endpoint;

use super::*;

const NAME: &str = "example.com/berth";

fn list(devices: &[(&str, &str)]) -> Vec<protocol::Device> {
    let device =
        |(id, health): &(&str, &str)| protocol::Device { id: (*id).to_owned(), health: (*health).to_owned(), topology: None };
    devices.iter().map(device).collect()
}

fn connected() -> Connected {
    Connected { plugin: Plugin::new(Endpoint::new("/p.sock")), options: DevicePluginOptions::default() }
}

/// Berths a, b and c, of which the last one is not healthy.
fn inventory() -> (Inventory, u64) {
    let mut inventory = Inventory::default();
    let serial = inventory.expect(NAME).unwrap();
    inventory.connect(NAME, serial, connected());
    assert!(inventory.report(NAME, serial, list(&[("a", "Healthy"), ("b", "Healthy"), ("c", "Unhealthy")])).unwrap());
    (inventory, serial)
}

fn owner(uid: &str, container: &str) -> Owner {
    Owner { uid: uid.to_owned(), container: container.to_owned(), resource: NAME.to_owned() }
}

fn ids(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

#[track_caller]
fn check_amount(inventory: &Inventory, capacity: usize, allocatable: usize) {
    assert_eq!(inventory.amounts(), Amounts::from([(NAME.to_owned(), Some(Amount { capacity, allocatable }))]));
}

/// KEP-3573, device plugins: the capacity of a resource is of all devices, what pods may take of the healthy ones.
#[test]
fn devices_are_as_their_plugin_says() {
    let (mut inventory, serial) = inventory();
    check_amount(&inventory, 3, 2);
    assert!(!inventory.report(NAME, serial, list(&[("c", "Unhealthy"), ("b", "Healthy"), ("a", "Healthy")])).unwrap(), "no news");
    assert!(inventory.disconnect(NAME, serial));
    check_amount(&inventory, 3, 0);
    let next = inventory.expect(NAME).unwrap();
    check_amount(&inventory, 3, 0);
    assert!(inventory.report(NAME, next, list(&[("a", "Healthy")])).unwrap());
    check_amount(&inventory, 1, 1);
    // Those before it have nothing to say any more.
    assert!(!inventory.report(NAME, serial, list(&[])).unwrap());
    assert!(!inventory.disconnect(NAME, serial) && !inventory.forget(NAME, serial));
    check_amount(&inventory, 1, 1);
    assert!(inventory.forget(NAME, next));
    check_amount(&inventory, 0, 0);
}

#[test]
fn plugins_are_bounded() {
    let (mut inventory, serial) = inventory();
    let many: Vec<String> = (0..=DEVICES).map(|number| number.to_string()).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|id| (id.as_str(), "Healthy")).collect();
    assert_eq!(inventory.report(NAME, serial, list(&many)), Err(TooLong));
    assert!((1..RESOURCES).all(|number| inventory.expect(&format!("example.com/{number}")).is_ok()));
    assert_eq!(inventory.expect("example.com/more"), Err(TooMany));
    assert!(inventory.expect(NAME).is_ok());
}

/// A node that runs for long sees many names come and go: they are no limit of its life.
#[test]
fn names_that_are_gone_make_room() {
    let (mut inventory, serial) = inventory();
    check(&mut inventory, &owner("u", "c"), 1, (&[], &[]), Ok(&["a"]));
    inventory.disconnect(NAME, serial);
    assert!(inventory.forget(NAME, serial));
    let name = |number: usize| format!("example.com/{number:03}");
    let serials: Vec<u64> = (1..RESOURCES).map(|number| inventory.expect(&name(number)).unwrap()).collect();
    assert_eq!(inventory.expect("example.com/more"), Err(TooMany), "one is held, the others are about to say what they have");
    assert!(inventory.forget(&name(7), serials[6]));
    assert!(inventory.expect("example.com/more").is_ok());
    assert!(!inventory.manages(&name(7)) && inventory.manages(NAME));
    assert_eq!(inventory.amounts().get(&name(7)), Some(&None), "the API may show it still");
    inventory.told([&name(7)]);
    assert_eq!(inventory.amounts().get(&name(7)), None);
    // One that comes back is not taken away.
    assert!(inventory.release("u"));
    assert!(inventory.expect(&name(7)).is_ok() && !inventory.manages(NAME));
    assert_eq!(inventory.amounts().get(NAME), Some(&None));
    assert!(inventory.forget(&name(8), serials[7]) && inventory.expect(NAME).is_ok());
    assert!(matches!(inventory.amounts().get(NAME), Some(Some(_))), "it is back, and not taken away");
}

/// Asks for so many, with what may be used again and what is preferred: the devices, or why not.
#[track_caller]
fn check(
    inventory: &mut Inventory,
    owner: &Owner,
    required: usize,
    (reusable, preferred): (&[&str], &[&str]),
    expected: Result<&[&str], &str>,
) {
    let preferred: Vec<String> = preferred.iter().map(|id| (*id).to_owned()).collect();
    let given = inventory.reserve(owner, (required, None), &ids(reusable), &preferred);
    let expected = expected.map(|ids| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>());
    assert_eq!(given.map_err(|error| error.to_string()), expected.map_err(str::to_owned));
}

#[test]
fn devices_have_one_owner() {
    let (mut inventory, serial) = inventory();
    let too_few = |needed, available| {
        format!("requested number of devices unavailable for {NAME}. Requested: {needed}, Available: {available}")
    };
    check(&mut inventory, &owner("u", "c"), 3, (&[], &[]), Err(&too_few(3, 2)));
    check(&mut inventory, &owner("u", "c"), 1, (&[], &["c", "b"]), Ok(&["b"]));
    check(&mut inventory, &owner("u", "c"), 1, (&[], &[]), Ok(&[]));
    let changed = format!("pod \"u\" container \"c\" changed request for resource \"{NAME}\" from 1 to 2");
    check(&mut inventory, &owner("u", "c"), 2, (&[], &[]), Err(&changed));
    check(&mut inventory, &owner("v", "c"), 2, (&[], &[]), Err(&too_few(2, 1)));
    check(&mut inventory, &owner("v", "c"), 1, (&[], &["b"]), Ok(&["a"]));
    inventory.leave("u");
    check(&mut inventory, &owner("w", "c"), 2, (&[], &[]), Err(&too_few(2, 0)));
    let later = format!("devices of {NAME} are not free before pods have ended that are on their way out");
    check(&mut inventory, &owner("w", "c"), 1, (&[], &[]), Err(&later));
    assert!(inventory.release("u") && !inventory.release("u"));
    inventory.disconnect(NAME, serial);
    let unhealthy = format!("no healthy devices present; cannot allocate unhealthy devices {NAME}");
    check(&mut inventory, &owner("w", "c"), 1, (&[], &[]), Err(&unhealthy));
    assert_eq!(inventory.of_container("v", "c").into_keys().collect::<Vec<_>>(), [NAME], "it keeps what it has");
}

/// Init containers run before the others: these get the same devices.
#[test]
fn devices_of_init_containers_are_used_again() {
    let (mut inventory, _) = inventory();
    check(&mut inventory, &owner("u", "init"), 1, (&[], &["b"]), Ok(&["b"]));
    check(&mut inventory, &owner("u", "main"), 2, (&["b"], &[]), Ok(&["a", "b"]));
    let too_few = format!("requested number of devices unavailable for {NAME}. Requested: 1, Available: 0");
    check(&mut inventory, &owner("u", "other"), 2, (&["b"], &[]), Err(&too_few));
}

/// KEP-4680: "Unknown: the status cannot be determined. For example, Device Plugin got unregistered and hasn't been re-registered since".
#[test]
fn health_is_as_the_plugin_says() {
    let (mut inventory, serial) = inventory();
    let health = |inventory: &Inventory| ["a", "c", "d"].map(|id| inventory.health(NAME, id));
    assert_eq!(health(&inventory), ["Healthy", "Unhealthy", "Unknown"]);
    assert_eq!(inventory.health("example.com/other", "a"), "Unknown");
    assert!(inventory.report(NAME, serial, list(&[("a", "Unhealthy"), ("c", "Healthy")])).unwrap());
    assert_eq!(health(&inventory), ["Unhealthy", "Healthy", "Unknown"]);
    assert!(inventory.disconnect(NAME, serial));
    assert_eq!(health(&inventory), ["Unknown"; 3]);
}

/// `PreStartContainer`: "Plugin can run device specific operations such as resetting the device before making devices available to the container."
#[test]
fn a_plugin_that_is_away_is_not_left_out_at_a_start() {
    let mut inventory = Inventory::default();
    let serial = inventory.expect(NAME).unwrap();
    let options = |pre_start_required| DevicePluginOptions { pre_start_required, ..DevicePluginOptions::default() };
    let connect = |inventory: &mut Inventory, serial, pre_start| {
        inventory.connect(NAME, serial, Connected { options: options(pre_start), ..connected() });
    };
    let asked = |inventory: &Inventory| inventory.before_start(NAME).map(|plugin| plugin.is_some());
    assert_eq!(asked(&inventory), Ok(false));
    connect(&mut inventory, serial, true);
    assert_eq!(asked(&inventory), Ok(true));
    assert!(inventory.disconnect(NAME, serial));
    assert_eq!(asked(&inventory), Err(Away(NAME.to_owned())));
    assert!(inventory.forget(NAME, serial));
    assert_eq!(asked(&inventory), Err(Away(NAME.to_owned())));
    let next = inventory.expect(NAME).unwrap();
    connect(&mut inventory, next, false);
    assert_eq!(asked(&inventory), Ok(false));
    assert!(inventory.disconnect(NAME, next));
    assert_eq!(asked(&inventory), Ok(false), "another version, which does not want it");
}
