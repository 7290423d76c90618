#![allow(clippy::unwrap_used)]
use super::*;
use crate::nft::contents::Contents;
use crate::nft::element::Protocol;

fn entry(address: &str, endpoints: u32) -> Entry {
    let endpoint = |i| Endpoint { address: [10, 42, 0, i as u8 + 2].into(), port: 80 };
    Entry {
        clients: Clients::All,
        key: Key { address: address.parse().unwrap(), protocol: Protocol::Tcp, port: 80 },
        slots: (0..endpoints).map(endpoint).collect(),
        empty: Empty::Reject,
        sticky: 0,
        masquerade: false,
        sources: None,
        claim: Claim::ClusterIp,
        programs: Programs::NONE,
    }
}

/// Contributes entries for owners, and compares (elements removed, elements added, chains new, chains gone).
fn check(contents: &mut Contents, changes: &[(&str, &[Entry])], expected: (usize, usize, usize, usize)) {
    let changes: Vec<_> = changes.iter().map(|(owner, entries)| ((*owner).to_owned(), fragment(entries))).collect();
    let delta = contents.replace(changes, &Default::default()).remove(&Family::V4).unwrap_or_default();
    let removed = delta.remove.values().map(Vec::len).sum::<usize>();
    assert_eq!((removed, delta.len() - removed, delta.new_chains.len(), delta.gone_chains.len()), expected);
}

#[test]
fn a_change_of_a_service_is_a_change_of_its_elements() {
    let mut contents = Contents::default();
    contents.replace([("features".to_owned(), super::super::fixed(&Config::default(), &[Family::V4]))], &Default::default());
    let (web, other) = ("10.43.0.1", "10.43.0.2");
    // Entry, two slots, and the code with its chain.
    check(&mut contents, &[("web", &[entry(web, 2)])], (0, 4, 1, 0));
    check(&mut contents, &[("web", &[entry(web, 2)])], (0, 0, 0, 0));
    check(&mut contents, &[("other", &[entry(other, 2)])], (0, 3, 0, 0));
    // One endpoint more: the entry changes, one slot and a code come.
    check(&mut contents, &[("web", &[entry(web, 3)])], (1, 3, 1, 0));
    check(&mut contents, &[("web", &[])], (5, 0, 0, 1));
    check(&mut contents, &[("other", &[entry(other, 0)])], (4, 2, 0, 1));
}

#[test]
fn chains_and_verdicts_of_codes() {
    let check = |change: &dyn Fn(&mut Entry), expected: &str| {
        let mut one = entry("10.43.0.1", 2);
        change(&mut one);
        assert_eq!(format!("{:?}", one.code(7).verdict()), expected);
    };
    check(&|_| (), "Goto(\"pick-2\")");
    check(&|one| one.sticky = 60, "Goto(\"pick-2-sticky-60-7\")");
    check(&|one| one.masquerade = true, "Goto(\"pick-2-masquerade\")");
    check(&|one| one.key.address = [0; 4].into(), "Goto(\"pick-2-node-port\")");
    check(&|one| one.clients = Clients::Outside, "Goto(\"pick-2-local\")");
    check(&|one| one.sources = Some(Vec::new()), "Goto(\"pick-2-restricted\")");
    check(&|one| one.slots.clear(), "Goto(\"refuse\")");
    check(&|one| (one.slots, one.empty) = (Vec::new(), Empty::Drop), "Drop");
}

#[test]
fn codes_differ_where_their_chains_do() {
    let variants: [&dyn Fn(&mut Entry); 6] = [
        &|_| (),
        &|one| one.sticky = 86_400,
        &|one| one.masquerade = true,
        &|one| one.key.address = [0; 4].into(),
        &|one| one.clients = Clients::Outside,
        &|one| one.sources = Some(Vec::new()),
    ];
    let codes: HashSet<[u8; 12]> = variants
        .iter()
        .map(|change| {
            let mut one = entry("10.43.0.1", 2);
            change(&mut one);
            one.code(7).encode()
        })
        .collect();
    assert_eq!(codes.len(), variants.len());
}

/// Who fills the map of a service keeps no other from remembering its clients.
#[test]
fn each_service_remembers_its_own_clients() {
    let sticky = |address: &str| Entry { sticky: 60, ..entry(address, 2) };
    let node_port =
        Entry { key: Key { address: [0; 4].into(), ..entry("10.43.0.1", 2).key }, claim: Claim::External, ..sticky("10.43.0.1") };
    let sets = |entries: &[Entry]| {
        let names: HashSet<String> = fragment(entries).sets.into_iter().map(|(_, set)| set.name()).collect();
        names
    };
    let of = |number: u32| HashSet::from([format!("affinity-{number}")]);
    assert_eq!(sets(&[sticky("10.43.0.1"), node_port.clone()]), of(0x0a2b_0001));
    assert_eq!(sets(&[node_port, sticky("10.43.0.2")]), of(0x0a2b_0002));
    assert_eq!(sets(&[sticky("fd43::7")]), of(7));
    assert_eq!(sets(&[entry("10.43.0.1", 2), Entry { sticky: 60, ..entry("10.43.0.1", 0) }]), HashSet::new());
    let codes = ["10.43.0.1", "10.43.0.2"].map(|address| sticky(address).code(affinity(&[sticky(address)], Family::V4)).encode());
    assert_ne!(codes[0], codes[1]);
}
