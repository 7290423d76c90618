#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use nix::errno::Errno;

use super::*;
use crate::nft::contents::Fragment;

fn kernel(errno: Errno) -> netlink::Error {
    netlink::Error::Kernel { what: "test", errno, seq: 0 }
}

fn changes(owners: &str) -> Vec<Change> {
    owners.split_whitespace().map(|owner| (owner.to_owned(), Fragment::default())).collect()
}

fn owners<'a>(changes: impl IntoIterator<Item = &'a Change>) -> String {
    let owners: BTreeSet<&str> = changes.into_iter().map(|(owner, _)| owner.as_str()).collect();
    owners.into_iter().collect::<Vec<_>>().join(" ")
}

/// A kernel that refuses `bad...`, `x=...` where another x is, and `a>b` where there is no b; the `fails`th batch fails for another reason.
fn check(given: &str, fails: Option<usize>, taken: &str, expected: Result<&str, &str>) {
    let (mut held, mut count) = (Vec::<Change>::new(), 0);
    let result = take_what_can(changes(given), |part| {
        count += 1;
        let refuse = |part, errno, culprits| {
            Err(Box::new(Refusal { table: "t".to_owned(), source: kernel(errno), changes: part, culprits }))
        };
        if fails == Some(count) {
            return refuse(part, Errno::ENOMEM, None);
        }
        let all: Vec<Change> = held.iter().chain(&part).cloned().collect();
        let is_bad = |owner: &String| owner.starts_with("bad");
        let bad = part.iter().map(|(owner, _)| owner).filter(|owner| is_bad(owner));
        let bad: BTreeMap<String, netlink::Error> = bad.map(|owner| (owner.clone(), kernel(Errno::EINVAL))).collect();
        let kind = |owner: &str| owner.split_once('=').map(|(kind, _)| kind.to_owned());
        let twice = all
            .iter()
            .filter_map(|(owner, _)| kind(owner))
            .any(|one| all.iter().filter(|(other, _)| kind(other).as_ref() == Some(&one)).count() > 1);
        let names: BTreeSet<&str> = all.iter().map(|(owner, _)| owner.split('>').next().unwrap()).collect();
        let dangles = all.iter().any(|(owner, _)| owner.split_once('>').is_some_and(|(_, to)| !names.contains(to)));
        if !bad.is_empty() || twice || dangles {
            return refuse(part, Errno::ENOENT, Some(bad));
        }
        held = all;
        Ok(())
    });
    assert_eq!(owners(&held), taken, "{given}");
    let result = result.map(|refused| owners(refused.iter().map(|(change, _)| change)));
    assert_eq!(result.map_err(|refusal| owners(&refusal.changes)), expected.map(str::to_owned).map_err(str::to_owned), "{given}");
}

#[test]
fn what_can_be_taken_is() {
    check("", None, "", Ok(""));
    check("a b c", None, "a b c", Ok(""));
    check("a bad1 b bad2", None, "a b", Ok("bad1 bad2"));
    check("bad1", None, "", Ok("bad1"));
    check("x=1 a x=2 b", None, "a b x=1", Ok("x=2"));
    // Whoever refers to another one is refused because of that one only.
    check("a>bad1 b bad1", None, "b", Ok("a>bad1 bad1"));
    check("a>z x=1 b>a x=2 z", None, "a>z b>a x=1 z", Ok("x=2"));
    check("a>b b>c c>d d x=1 x=2", None, "a>b b>c c>d d x=1", Ok("x=2"));
}

/// Whatever fails in passing, what is not in force is given back, and nobody is to blame.
#[test]
fn what_fails_in_passing_is_given_back() {
    check("a bad1 b", Some(1), "", Err("a b bad1"));
    check("a bad1 b", Some(2), "", Err("a b bad1"));
    check("a x=1 b x=2", Some(3), "a x=1", Err("b x=2"));
    check("a x=1 b x=2", Some(4), "a x=1", Err("b x=2"));
    check("a x=1 b x=2", Some(5), "a b x=1", Err("x=2"));
}

#[test]
fn nobody_is_to_blame_for_a_passing_error() {
    let socket = || netlink::Error::Socket { what: "test", source: Errno::ENOBUFS.into() };
    let passing = [Errno::ENOMEM, Errno::ENOBUFS, Errno::EINTR, Errno::EAGAIN, Errno::EBUSY].map(kernel);
    for error in passing.into_iter().chain([socket()]) {
        assert!(error.is_passing(), "{error}");
        let mut error = Some(error);
        let try_alone = |changes: &[Change]| match changes {
            [_] => Err(error.take().unwrap_or_else(|| kernel(Errno::EINVAL))),
            _ => Err(kernel(Errno::EINVAL)),
        };
        assert!(culprits(&changes("a b"), Patience::Left, try_alone).is_err());
    }
    for errno in [Errno::EINVAL, Errno::ENOENT, Errno::EEXIST, Errno::ENOSPC, Errno::EOPNOTSUPP, Errno::ERANGE] {
        let found = culprits(&changes("a b c"), Patience::Left, |part| {
            if part.iter().any(|(owner, _)| owner == "b") { Err(kernel(errno)) } else { Ok(()) }
        });
        assert_eq!(found.unwrap().into_keys().collect::<Vec<_>>(), ["b"]);
    }
}

/// What does not pass is about what was asked for: where a batch never fits, its parts do, and who is too large alone is to blame.
#[test]
fn patience_ends() {
    let too_large = |part: &[Change]| part.len() > 2 || part.iter().any(|(owner, _)| owner == "large");
    for error in [|| kernel(Errno::ENOMEM), || netlink::Error::Socket { what: "test", source: Errno::ENOBUFS.into() }] {
        let try_alone = |part: &[Change]| if too_large(part) { Err(error()) } else { Ok(()) };
        let blamed = |owners: &str, patience| {
            let found = culprits(&changes(owners), patience, try_alone).ok();
            found.map(|found| found.into_keys().collect::<Vec<_>>().join(" "))
        };
        assert_eq!(blamed("a b c large d", Patience::Left), None);
        assert_eq!(blamed("a b c large d", Patience::Spent).as_deref(), Some("large"));
        // Nobody alone: they are taken apart.
        assert_eq!(blamed("a b c d", Patience::Spent).as_deref(), Some(""));
        let mut held = Vec::new();
        let result = take_what_can(changes("a b c large d e f"), |part| {
            let Err(source) = try_alone(&part) else {
                held.extend(part);
                return Ok(());
            };
            let culprits = culprits(&part, Patience::Spent, try_alone).ok();
            Err(Box::new(Refusal { table: "t".to_owned(), source, changes: part, culprits }))
        });
        assert_eq!(owners(&held), "a b c d e f");
        assert_eq!(owners(result.unwrap().iter().map(|(change, _)| change)), "large");
    }
}
