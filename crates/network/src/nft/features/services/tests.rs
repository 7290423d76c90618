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
        assert_eq!(format!("{:?}", one.code().verdict()), expected);
    };
    check(&|_| (), "Goto(\"pick-2\")");
    check(&|one| one.sticky = 60, "Goto(\"pick-2-sticky-60\")");
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
    let codes: HashSet<[u8; 8]> = variants
        .iter()
        .map(|change| {
            let mut one = entry("10.43.0.1", 2);
            change(&mut one);
            one.code().encode()
        })
        .collect();
    assert_eq!(codes.len(), variants.len());
}
