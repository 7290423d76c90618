#![allow(clippy::unwrap_used)]
use std::net::IpAddr;

use super::*;
use crate::nft::batch::Rule;
use crate::nft::set::{Field, SetKind};

static ONE: SetKind = SetKind::set("one", &[Field::Port]);
static MANY: SetKind = SetKind::set("many", &[Field::Port]);

fn element(set: SetId, key: u8, value: u8) -> Element {
    Element::new(Family::of(IpAddr::from([0; 4])), set, vec![key], Value::Data([value].into()))
}

/// A fragment as text: `set N`, `chain NAME RULES`, `KEY=VALUE` in the set `one`, `N:KEY=VALUE` in a numbered one (which it
/// does not contribute), `KEY~VALUE` in common, and `KEY!VALUE` by the better right.
fn fragment(text: &str) -> Fragment {
    let mut fragment = Fragment::default();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let words: Vec<&str> = item.split(' ').collect();
        match words.as_slice() {
            ["set", number] => fragment.sets.push((Family::V4, MANY.numbered(number.parse().unwrap()))),
            ["chain", name, rules] => {
                let rules = (0..rules.parse().unwrap()).map(|_| Rule::new(Vec::new())).collect();
                fragment.chains.push((Family::V4, Chain::regular(*name, rules)));
            }
            _ => {
                let (set, rest) = match item.split_once(':') {
                    Some((number, rest)) => (MANY.numbered(number.parse().unwrap()), rest),
                    None => (ONE.only(), item),
                };
                let at = rest.find(['=', '~', '!']).unwrap();
                let new = element(set, rest[..at].parse().unwrap(), rest[at + 1..].parse().unwrap());
                match &rest[at..=at] {
                    "~" => fragment.common.push(new),
                    "!" => fragment.elements.push(new.claimed(Claim::ClusterIp)),
                    _ => fragment.elements.push(new),
                }
            }
        }
    }
    fragment
}

fn text(delta: Delta) -> String {
    let op = |op: Op| match op {
        Op::NewSet(set) => format!("+{set}"),
        Op::DelSet(set) => format!("-{set}"),
        Op::NewChain { name, .. } => format!("+{name}"),
        Op::FlushChain { name } => format!("flush {name}"),
        Op::DelChain { name } => format!("-{name}"),
        Op::NewRule { chain, .. } => format!("rule {chain}"),
        Op::Add { set, mut elements } => {
            elements.sort_by(|a, b| a.0.cmp(&b.0));
            let value = |value: &Value| if let Value::Data(bytes) = value { bytes[0] } else { 0 };
            let each: Vec<String> = elements.iter().map(|(key, one)| format!("{}={}", key[0], value(one))).collect();
            format!("add {set} {}", each.join(" "))
        }
        Op::Remove { set, mut keys } => {
            keys.sort();
            format!("remove {set} {}", keys.iter().map(|key| key[0].to_string()).collect::<Vec<_>>().join(" "))
        }
        other => format!("{other:?}"),
    };
    delta.ops().into_iter().map(op).collect::<Vec<_>>().join(", ")
}

/// Applies the fragments of owners and compares the operations.
fn check(contents: &mut Contents, changes: &[(&str, &str)], expected: &str) {
    let changes: Vec<Change> = changes.iter().map(|(owner, text)| ((*owner).to_owned(), fragment(text))).collect();
    let mut deltas = contents.replace(changes, &World::default());
    assert_eq!(text(deltas.remove(&Family::V4).unwrap_or_default()), expected);
}

fn with_set() -> Contents {
    let mut contents = Contents::default();
    contents.replace(
        [("fixed".to_owned(), Fragment { sets: vec![(Family::V4, ONE.only())], ..Fragment::default() })],
        &World::default(),
    );
    contents
}

#[test]
fn deltas_are_minimal() {
    let mut contents = with_set();
    check(&mut contents, &[("a", "1=1, 2=2")], "add one 1=1 2=2");
    check(&mut contents, &[("a", "1=1, 2=2")], "");
    check(&mut contents, &[("a", "1=1, 2=3, 4=4")], "remove one 2, add one 2=3 4=4");
    check(&mut contents, &[("b", "5=5"), ("a", "")], "remove one 1 2 4, add one 5=5");
    check(&mut contents, &[("b", ""), ("c", "5=5")], "");
    check(&mut contents, &[("c", ""), ("fixed", "")], "-one");
    assert!(contents.is_empty() && contents.owners.is_empty() && contents.sets.is_empty());
}

#[test]
fn the_first_keeps_its_place_whatever_the_names() {
    let mut contents = with_set();
    check(&mut contents, &[("z", "1=26")], "add one 1=26");
    check(&mut contents, &[("a", "1=1")], "");
    check(&mut contents, &[("z", "1=27")], "remove one 1, add one 1=27");
    // A better right comes before who was first, and gives the place back.
    check(&mut contents, &[("m", "1!13")], "remove one 1, add one 1=13");
    check(&mut contents, &[("m", "")], "remove one 1, add one 1=27");
    check(&mut contents, &[("z", "")], "remove one 1, add one 1=1");
    check(&mut contents, &[("z", "1=26")], "");
}

#[test]
fn chains_and_sets_live_as_long_as_somebody_needs_them() {
    let mut contents = with_set();
    check(&mut contents, &[("a", "set 1, chain x 2, 1:7=1, 3~3")], "+many-1, +x, rule x, rule x, add many-1 7=1, add one 3=3");
    check(&mut contents, &[("b", "set 1, chain x 2, 1:8=1, 3~3")], "add many-1 8=1");
    check(&mut contents, &[("a", "")], "remove many-1 7");
    check(&mut contents, &[("b", "set 1, chain x 1, 1:8=1, 3~3")], "flush x, rule x");
    check(&mut contents, &[("b", "")], "remove one 3, flush x, -many-1, -x");
}

#[test]
fn everything_is_what_all_changes_made() {
    let mut contents = with_set();
    check(
        &mut contents,
        &[("a", "set 1, 1:7=1, 3~3, 4=4"), ("b", "4=5, chain y 1")],
        "+many-1, +y, rule y, add many-1 7=1, add one 3=3 4=4",
    );
    let all = contents.everything().remove(&Family::V4).unwrap();
    assert_eq!(text(all), "+many-1, +one, +y, rule y, add many-1 7=1, add one 3=3 4=4");
}

#[test]
fn what_an_owner_contributes_is_known() {
    let mut contents = with_set();
    for text in ["1=1, 2=2, chain x 2, set 4, 4:1=1, 5~5, 6~6", "2!2", ""] {
        // Another one has some of it, too.
        check_any(&mut contents, &[("other", "1=9, 5~5, chain x 2, set 4")]);
        check_any(&mut contents, &[("a", text)]);
        assert_eq!(sorted(contents.fragment_of("a")), sorted(fragment(text)), "{text}");
    }
}

/// What a change hands back is what its owners had: put back, all is as it was.
#[test]
fn what_is_displaced_can_be_put_back() {
    let own = ["1=1, 2=2, chain x 2, set 4, 4:1=1, 5~5, 6~6", "2!2, chain z 1", "8=3, chain y 2, 6~6", ""];
    let pairs = |all: &[&'static str]| -> Vec<(&str, &str)> {
        all.iter().flat_map(|one| all.iter().map(move |other| (*one, *other))).collect()
    };
    for (one, other) in pairs(&own) {
        for (next, last) in pairs(&[&own[..], &["1=3, 2=4, 8=5, chain x 3"]].concat()) {
            let mut contents = with_set();
            check_any(&mut contents, &[("a", one), ("b", other)]);
            let (before, had) = (contents.everything(), ["a", "b"].map(|owner| sorted(contents.fragment_of(owner))));
            let changes = [("a", next), ("b", last), ("a", "7=7, chain x 1")];
            let changes = changes.map(|(owner, text)| (owner.to_owned(), fragment(text)));
            let (_, displaced) = contents.displace(changes, &World::default());
            let fragments: Vec<Fragment> = displaced.iter().map(|(_, fragment)| sorted(fragment.clone())).collect();
            assert_eq!(fragments, had, "{one}; {other}; {next}; {last}");
            contents.replace(displaced, &World::default());
            assert_eq!(
                contents.everything().into_values().map(text).collect::<Vec<_>>(),
                before.into_values().map(text).collect::<Vec<_>>()
            );
        }
    }
}

fn check_any(contents: &mut Contents, changes: &[(&str, &str)]) {
    contents.replace(changes.iter().map(|(owner, text)| ((*owner).to_owned(), fragment(text))), &World::default());
}

static RANGES: SetKind = SetKind::ranges("ranges", &[Field::Port]);

#[test]
fn ranges_are_there_before_the_rules() {
    let mut contents = with_set();
    let set = (Family::V4, RANGES.numbered(7));
    let elements = vec![Element::new(Family::V4, set.1, vec![0, 1, 0, 2], Value::Data([1].into()))];
    let mut both = fragment("1=1, set 4, chain x 1");
    both.extend(Fragment { sets: vec![set], ..elements.into() });
    let mut delta = contents.replace([("a".to_owned(), both)], &World::default()).remove(&Family::V4).unwrap();
    let first = delta.take_ranges();
    assert!(
        matches!(&first[..], [Op::NewSet(one), Op::Add { set: other, elements }] if [*one, *other] == [set.1; 2] && elements.len() == 1)
    );
    assert_eq!(text(delta), "+many-4, +x, rule x, add one 1=1");
    // Those that go, go with the rest.
    let mut delta = contents.replace([("a".to_owned(), Fragment::default())], &World::default()).remove(&Family::V4).unwrap();
    assert_eq!(delta.take_ranges(), []);
    assert!(delta.ops().contains(&Op::DelSet(set.1)));
}

fn sorted(mut fragment: Fragment) -> Fragment {
    fragment.elements.sort_by(|a, b| (a.set, &a.key).cmp(&(b.set, &b.key)));
    fragment.common.sort_by(|a, b| a.key.cmp(&b.key));
    fragment.chains.sort_by(|a, b| a.1.name.cmp(&b.1.name));
    fragment.sets.sort_unstable();
    fragment
}
