//! What the kernel refuses, in a network namespace of its own.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::nft::batch::{Chain, Value};
use crate::nft::contents::Fragment;
use crate::nft::element::{Element, Endpoint, Protocol};
use crate::nft::expr::Verdict;
use crate::nft::set::{Field, SetKind};

static PORTS: SetKind = SetKind::set("test-ports", &[Field::Port]);
static RANGES: SetKind = SetKind::ranges("test-ranges", &[Field::Port]);

/// A set of its own with an element.
fn fragment(number: u32, key: &[u8]) -> Fragment {
    let set = PORTS.numbered(number);
    let element = Element::new(Family::V4, set, key.to_vec(), Value::None);
    Fragment { sets: vec![(Family::V4, set)], ..vec![element].into() }
}

fn good(number: u32) -> Change {
    (format!("good-{number}"), fragment(number, &[0, 80]))
}

/// The kernel wants two bytes.
fn bad(number: u32) -> Change {
    (format!("bad-{number}"), fragment(number, &[1; 9]))
}

/// A chain that leads to another one, which may be somebody else's.
fn leading(name: &str, to: &str) -> Change {
    let rule = Rule::new(vec![Expr::Verdict(Verdict::Jump(to.to_owned()))]);
    (name.to_owned(), Fragment { chains: vec![(Family::V4, Chain::regular(name, vec![rule]))], ..Fragment::default() })
}

fn open(holders: &[Holder]) -> Table {
    let config = Config { bridge: "knarr0".into(), pod_cidrs: vec!["10.42.0.0/24".parse().unwrap()], ..Config::default() };
    Table::open("knarr-refusals", config, holders).unwrap()
}

/// The sets of the tests that the kernel has.
fn sets() -> Vec<String> {
    let listed = std::process::Command::new("nft").args(["list", "sets"]).output().unwrap();
    let text = String::from_utf8(listed.stdout).unwrap();
    let names = text.lines().filter_map(|line| line.trim().strip_prefix("set test-ports-"));
    let mut names: Vec<String> = names.map(|name| name.trim_end_matches(" {").to_owned()).collect();
    names.sort();
    names
}

/// The owners of the changes that are given back, and those to blame.
fn refused(table: &Table, changes: Vec<Change>) -> (Vec<Change>, Option<Vec<String>>) {
    match table.replace(changes) {
        Err(Error::Refused(refusal)) => (refusal.changes, refusal.culprits.map(|all| all.into_keys().collect())),
        other => panic!("{other:?}"),
    }
}

fn isolated(test: impl FnOnce() + Send + 'static) {
    let alone = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root");
        test();
    });
    alone.join().unwrap();
}

/// One that the kernel does not take keeps no other from the table, neither at once nor later.
#[test]
fn who_is_refused_is_told_apart() {
    isolated(|| {
        let table = open(&[]);
        table.replace([good(1), ("changing".to_owned(), fragment(2, &[0, 81]))]).unwrap();
        let both = vec![good(3), bad(4), good(5), ("changing".to_owned(), fragment(6, &[2; 7]))];
        let (changes, culprits) = refused(&table, both.clone());
        assert_eq!(changes, both);
        assert_eq!(culprits.unwrap(), ["bad-4", "changing"]);
        // What each had before stays.
        assert_eq!(sets(), ["1", "2"]);
        table.replace(changes.into_iter().filter(|(owner, _)| owner.starts_with("good"))).unwrap();
        assert_eq!(sets(), ["1", "2", "3", "5"]);
        let (_, culprits) = refused(&table, vec![bad(7)]);
        assert_eq!(culprits.unwrap(), ["bad-7"]);
        table.put_back().unwrap();
        table.replace([good(8), ("changing".to_owned(), Fragment::default())]).unwrap();
        assert_eq!(sets(), ["1", "3", "5", "8"]);
    });
}

/// Nobody is to blame for what only two of them make.
#[test]
fn what_is_refused_together_is_taken_apart() {
    isolated(|| {
        let table = open(&[]);
        let overlapping = vec![range("one", 1, 5), range("other", 3, 7), good(1)];
        let (changes, culprits) = refused(&table, overlapping);
        assert_eq!((changes.len(), culprits.unwrap().len(), sets().len()), (3, 0, 0));
        table.replace([range("one", 1, 5)]).unwrap();
        let (_, culprits) = refused(&table, vec![range("other", 3, 7)]);
        assert!(culprits.unwrap().is_empty());
        let names = |refused: Vec<(Change, netlink::Error)>| refused.into_iter().map(|((name, _), _)| name).collect::<Vec<_>>();
        let many = vec![
            leading("first", "second"),
            bad(9),
            range("other", 3, 7),
            leading("second", "third"),
            leading("third", "fourth"),
        ];
        let rest = names(table.replace_what_can(many, Patience::Left).unwrap());
        assert_eq!(rest, ["bad-9", "first", "other", "second", "third"]);
        let with = vec![leading("first", "fourth"), range("other", 3, 7), ("fourth".to_owned(), chain_without_rules("fourth"))];
        assert_eq!(names(table.replace_what_can(with, Patience::Left).unwrap()), ["other"]);
        table.replace([good(1), range("other", 6, 7)]).unwrap();
        assert_eq!(sets(), ["1"]);
    });
}

/// What never fits, here for the socket's small buffer, stops nobody: it is taken apart when there is no patience left, and who is too large alone is left out.
#[test]
fn what_never_fits_is_taken_apart() {
    isolated(|| {
        let table = open(&[]);
        table.put_back().unwrap();
        // The kernel doubles it.
        table.limit_requests(16 * 1024);
        let sized = |number: u32, count: u16| {
            let set = PORTS.numbered(number);
            let element = |port: u16| Element::new(Family::V4, set, port.to_be_bytes().to_vec(), Value::None);
            let elements: Vec<Element> = (0..count).map(element).collect();
            (format!("sized-{number}"), Fragment { sets: vec![(Family::V4, set)], ..elements.into() })
        };
        // Together and alone they are less than what the buffer is made larger for.
        let all = vec![sized(1, 300), sized(2, 2600), sized(3, 300)];
        let failed = table.replace_what_can(all, Patience::Left).unwrap_err();
        assert!(failed.source.is_passing() && failed.culprits.is_none(), "{failed:?}");
        assert_eq!((failed.changes.len(), sets().len()), (3, 0));
        let left = table.replace_what_can(failed.changes, Patience::Spent).unwrap();
        let left: Vec<&str> = left.iter().map(|((owner, _), _)| owner.as_str()).collect();
        assert_eq!(left, ["sized-2"]);
        assert_eq!(sets(), ["1", "3"]);
        table.replace([good(4)]).unwrap();
        assert_eq!(sets(), ["1", "3", "4"]);
    });
}

/// Ranges of a set must not overlap, whoever contributes them.
fn range(owner: &str, first: u16, last: u16) -> Change {
    let set = RANGES.only();
    let element = Element::new(Family::V4, set, [first.to_be_bytes(), last.to_be_bytes()].concat(), Value::None);
    (owner.to_owned(), Fragment { sets: vec![(Family::V4, set)], ..vec![element].into() })
}

fn chain_without_rules(name: &str) -> Fragment {
    Fragment { chains: vec![(Family::V4, Chain::regular(name, Vec::new()))], ..Fragment::default() }
}

/// After a restart the kernel has an earlier table: what it would refuse is found before everything depends on it.
#[test]
fn what_a_held_table_waits_for_is_tried() {
    isolated(|| {
        open(&[]).replace([good(1)]).unwrap();
        let table = open(&[Holder::Services, Holder::Policies]);
        let (_, culprits) = refused(&table, vec![good(2), bad(3)]);
        assert_eq!(culprits.unwrap(), ["bad-3"]);
        table.replace([good(2), leading("one", "there-later")]).unwrap();
        table.replace([("there-later".to_owned(), chain_without_rules("there-later"))]).unwrap();
        table.release(Holder::Services).unwrap();
        assert_eq!(sets(), ["1"]);
        table.release(Holder::Policies).unwrap();
        assert_eq!(sets(), ["2"]);
    });
}

/// Static pods start while the server is away, and with it all that others know of services, policies and nodes.
#[test]
fn a_held_table_takes_what_pods_need() {
    isolated(|| {
        let known = || features::services::hairpin("10.42.0.8".parse().unwrap());
        open(&[]).replace([good(1), ("pod:known".to_owned(), Fragment::from(vec![known()]))]).unwrap();
        let table = open(&[Holder::Services]);
        let listed = || {
            let listed = std::process::Command::new("nft").args(["list", "ruleset"]).output().unwrap();
            String::from_utf8(listed.stdout).unwrap()
        };
        let address = "10.42.0.9".parse().unwrap();
        let elements = || {
            let sender = features::frames::sender("knv-static", [10, 88, 0, 0, 0, 9], address);
            Fragment::from(vec![sender, features::services::hairpin(address)])
        };
        table.replace([("service:x/a".to_owned(), elements())]).unwrap();
        assert!(!listed().contains("10.42.0.9"), "others wait");
        // What it has already, since the pod is an old one, keeps nothing from the rest.
        let new = features::services::hairpin("10.42.0.7".parse().unwrap());
        table.replace([("pod:known".to_owned(), Fragment::from(vec![known(), new]))]).unwrap();
        assert!(listed().contains("10.42.0.7 . 10.42.0.7"), "{}", listed());
        // A set that the earlier process had not keeps nothing from the rest.
        let mut pod = elements();
        pod.extend(fragment(3, &[0, 80]));
        table.replace([("service:x/a".to_owned(), Fragment::default())]).unwrap();
        table.replace([("pod:a".to_owned(), pod)]).unwrap();
        let text = listed();
        assert!(text.contains("10.42.0.9 . 10.42.0.9"), "{text}");
        assert!(!table.0.lock().families.contains(&Family::Bridge) || text.contains("knv-static"), "{text}");
        assert_eq!(sets(), ["1"]);
        table.release(Holder::Services).unwrap();
        assert!(listed().contains("10.42.0.9 . 10.42.0.9"));
        assert_eq!(sets(), ["3"]);
    });
}

/// A static pod that was made again while the server is away has another address, and its host port leads there.
#[test]
fn a_held_table_leads_host_ports_to_the_pods_that_are_there() {
    isolated(|| {
        let any = Family::V4.unspecified();
        let pod = |ports: &[u16], address: &str| {
            let to = Endpoint { address: address.parse().unwrap(), port: 8080 };
            let claims = ports
                .iter()
                .map(|port| features::host_ports::claim(Key { address: any, protocol: Protocol::Tcp, port: *port }, to));
            Fragment::from(claims.collect::<Vec<_>>())
        };
        open(&[]).replace([("pod:old".to_owned(), pod(&[7901, 7902, 7903], "10.42.0.8"))]).unwrap();
        let table = open(&[Holder::Services]);
        let leads = |port: u16, address: &str| {
            let listed = std::process::Command::new("nft").args(["list", "ruleset"]).output().unwrap();
            String::from_utf8(listed.stdout).unwrap().contains(&format!("0.0.0.0 . tcp . {port} : {address} . 8080"))
        };
        // One of them is there as it was, one is new, and one leads elsewhere.
        table.replace([("pod:new".to_owned(), pod(&[7900, 7901], "10.42.0.9"))]).unwrap();
        assert!(leads(7900, "10.42.0.9") && leads(7901, "10.42.0.9") && leads(7902, "10.42.0.8"));
        table.replace([("pod:other".to_owned(), pod(&[7903], "10.42.0.8"))]).unwrap();
        // From one that has started meanwhile to another one.
        table
            .replace([("pod:new".to_owned(), Fragment::default()), ("pod:third".to_owned(), pod(&[7901], "10.42.0.7"))])
            .unwrap();
        assert!(leads(7901, "10.42.0.7") && leads(7903, "10.42.0.8"));
        table.release(Holder::Services).unwrap();
        assert!(leads(7901, "10.42.0.7") && !leads(7900, "10.42.0.9") && !leads(7902, "10.42.0.8"));
    });
}

/// Who is refused with more answers than there is room for is to blame all the same, and no later request takes what is left of them for its own.
#[test]
fn answers_that_are_lost_keep_no_one_from_being_blamed() {
    isolated(|| {
        let table = open(&[]);
        table.replace([good(1)]).unwrap();
        table.0.lock().socket.limit(nix::sys::socket::sockopt::RcvBuf, 1);
        let mut many = Fragment::default();
        (100..600).for_each(|number| many.extend(fragment(number, &[1; 9])));
        assert_eq!(refused(&table, vec![("many".to_owned(), many)]).1.unwrap(), ["many"]);
        assert_eq!(sets(), ["1"]);
        table.replace([good(2)]).unwrap();
        assert_eq!(sets(), ["1", "2"]);
        assert_eq!(refused(&table, vec![bad(3)]).1.unwrap(), ["bad-3"]);
        table.replace([good(4)]).unwrap();
        assert_eq!(sets(), ["1", "2", "4"]);
    });
}
