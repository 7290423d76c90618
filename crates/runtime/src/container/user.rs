//! Who a container's process is: the image's or the pod's user, resolved with the files of the image.

use std::io::Read;
use std::path::Path;

use nix::fcntl::OFlag;
use oci_spec::runtime::Process;

use crate::api::{Error, ProcessUser, Result, SecurityContext, User as Name};
use crate::images::tree::Tree;

/// Most that is read of /etc/passwd and /etc/group, bytes.
const FILE_LIMIT: u64 = 1 << 20;

/// Resolves the user of a container with the root file system at `rootfs`.
pub(crate) fn resolve(rootfs: &Path, image_user: &str, security: &SecurityContext) -> Result<ProcessUser> {
    let tree = Tree::open(rootfs).map_err(|error| Error::Create(format!("root file system: {error}")))?;
    decide(&read(&tree, "etc/passwd"), &read(&tree, "etc/group"), image_user, security)
}

/// The environment of a process, in its order, by the files of the root that the calling process sees. HOME is always there, as with runc:
/// the directory of the user, or `/` when nobody in the files has the user's number.
pub(super) fn environment(process: &Process) -> Vec<String> {
    let env = process.env().clone().unwrap_or_default();
    with_home(env, || home(process.user().uid()))
}

/// An empty HOME is none.
fn with_home(mut env: Vec<String>, home: impl FnOnce() -> String) -> Vec<String> {
    let own = env.iter().rev().find_map(|entry| entry.strip_prefix("HOME="));
    if own.is_none_or(str::is_empty) {
        env.retain(|entry| !entry.starts_with("HOME="));
        env.push(format!("HOME={}", home()));
    }
    env
}

/// The home directory of a user, by the files of the root that this process sees.
fn home(uid: u32) -> String {
    let passwd = Tree::open(Path::new("/")).map(|tree| read(&tree, "etc/passwd")).unwrap_or_default();
    let home = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|e| field(e, 2) == Some(uid));
    home.and_then(|entry| entry.get(5).map(|home| (*home).to_owned())).filter(|home| !home.is_empty()).unwrap_or("/".to_owned())
}

fn read(tree: &Tree, path: &str) -> String {
    let mut text = Vec::new();
    if let Ok(fd) = tree.open_beneath(Path::new(path), OFlag::O_RDONLY | OFlag::O_NONBLOCK) {
        // A file that cannot be read names nobody.
        let _ = std::fs::File::from(fd).take(FILE_LIMIT).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn decide(passwd: &str, group: &str, image_user: &str, security: &SecurityContext) -> Result<ProcessUser> {
    let (name, group_name) = match security.run_as_user {
        Some(uid) => (Name::id(uid).unwrap_or_else(|| Name::OutOfRange(uid.to_string())), None),
        None => match image_user.split_once(':') {
            Some((user, group)) => (Name::parse(user), Some(group)),
            None => (Name::parse(image_user), None),
        },
    };
    let name = if name == Name::Name(String::new()) { Name::Id(0) } else { name };
    let entries: Vec<Vec<&str>> = passwd.lines().map(|line| line.split(':').collect()).collect();
    let find = |matches: &dyn Fn(&[&str]) -> bool| entries.iter().find(|entry| matches(entry));
    let (uid, entry) = match &name {
        Name::Id(uid) => (Some(*uid), find(&|entry| field(entry, 2) == Some(*uid))),
        Name::Name(login) => {
            let entry = find(&|entry| entry.first() == Some(&login.as_str()));
            (entry.and_then(|entry| field(entry, 2)), entry)
        }
        Name::OutOfRange(number) => return Err(Error::Create(format!("user {number} is out of range"))),
    };
    let uid = uid.ok_or_else(|| Error::Create(format!("unable to find user {name}: no matching entries in passwd file")))?;
    if security.run_as_non_root && uid == 0 {
        return Err(Error::Create(format!("container has runAsNonRoot and its user {name} is root (uid 0)")));
    }
    let gid = match (security.run_as_group, group_name) {
        (Some(gid), _) => number(gid)?,
        (None, Some(group_name)) => find_group(group, group_name)?,
        (None, None) => entry.and_then(|e| field(e, 3)).unwrap_or(0),
    };
    let mut groups = vec![gid];
    if let Some(login) = entry.and_then(|e| e.first()).filter(|_| !security.strict_groups) {
        groups.extend(memberships(group, login));
    }
    for extra in &security.supplemental_groups {
        groups.push(number(*extra)?);
    }
    let mut seen = std::collections::HashSet::new();
    groups.retain(|group| seen.insert(*group));
    Ok(ProcessUser { uid, gid, groups })
}

fn field(entry: &[&str], index: usize) -> Option<u32> {
    match Name::parse(entry.get(index)?) {
        Name::Id(id) => Some(id),
        Name::Name(_) | Name::OutOfRange(_) => None,
    }
}

fn number(gid: i64) -> Result<u32> {
    match Name::id(gid) {
        Some(Name::Id(gid)) => Ok(gid),
        _ => Err(Error::Create(format!("group {gid} is out of range"))),
    }
}

fn find_group(group: &str, name: &str) -> Result<u32> {
    match Name::parse(name) {
        Name::Id(gid) => return Ok(gid),
        Name::OutOfRange(number) => return Err(Error::Create(format!("group {number} is out of range"))),
        Name::Name(_) => {}
    }
    let mut lines = group.lines().map(|line| line.split(':').collect::<Vec<_>>());
    lines
        .find(|entry| entry.first() == Some(&name))
        .and_then(|entry| field(&entry, 2))
        .ok_or_else(|| Error::Create(format!("unable to find group {name}: no matching entries in group file")))
}

fn memberships(group: &str, login: &str) -> Vec<u32> {
    let lines = group.lines().map(|line| line.split(':').collect::<Vec<_>>());
    lines
        .filter(|entry| entry.get(3).is_some_and(|members| members.split(',').any(|member| member == login)))
        .filter_map(|entry| field(&entry, 2))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn home_is_always_there() {
        let check = |env: &[&str], expected: &[&str]| {
            let env = env.iter().map(|entry| (*entry).to_owned()).collect();
            assert_eq!(with_home(env, || "/".to_owned()), expected);
        };
        check(&["A=1", "PATH=/bin"], &["A=1", "PATH=/bin", "HOME=/"]);
        check(&["HOME=/data", "A=1"], &["HOME=/data", "A=1"]);
        check(&["HOME=", "A=1"], &["A=1", "HOME=/"]);
        check(&["HOMELESS=1"], &["HOMELESS=1", "HOME=/"]);
    }

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/var/www:/bin/false\ntoor:x:0:0::/:\n\
        broken:x:4294967295:0::/:\n4294967296:x:0:0::/:\n-1:x:0:0::/:\n";
    const GROUP: &str = "root:x:0:\nweb:x:34:\nlog:x:7:web,other\n";

    fn check(image: &str, security: SecurityContext, expected: std::result::Result<(u32, u32, &[u32]), &str>) {
        let result = decide(PASSWD, GROUP, image, &security).map_err(|error| error.to_string());
        match (result, expected) {
            (Ok(user), Ok((uid, gid, groups))) => {
                assert_eq!((user.uid, user.gid, &user.groups[..]), (uid, gid, groups), "{image}")
            }
            (Err(error), Err(text)) => assert!(error.contains(text), "{error}"),
            (result, _) => panic!("{image}: {result:?}"),
        }
    }

    #[test]
    fn users_are_resolved_like_other_runtimes_do() {
        let none = SecurityContext::default();
        check("", none.clone(), Ok((0, 0, &[0])));
        check("web", none.clone(), Ok((33, 34, &[34, 7])));
        check("33", none.clone(), Ok((33, 34, &[34, 7])));
        check("1000", none.clone(), Ok((1000, 0, &[0])));
        check("web:log", none.clone(), Ok((33, 7, &[7])));
        check("5:6", none.clone(), Ok((5, 6, &[6])));
        check("nobody", none.clone(), Err("unable to find user nobody"));
        check("web:nogroup", none, Err("unable to find group nogroup"));
        let security = SecurityContext {
            run_as_user: Some(33),
            run_as_group: Some(9),
            supplemental_groups: vec![2000, 9],
            ..Default::default()
        };
        check("root", security.clone(), Ok((33, 9, &[9, 7, 2000])));
        check("root", SecurityContext { strict_groups: true, ..security }, Ok((33, 9, &[9, 2000])));
    }

    #[test]
    fn numbers_are_never_names_and_the_highest_is_none() {
        let none = SecurityContext::default;
        for root in ["00", "+0", "-0", "0:0"] {
            check(root, none(), Ok((0, 0, &[0])));
        }
        for (user, number) in [("4294967296", "4294967296"), ("4294967295", "4294967295"), ("-1", "-1"), ("-1:0", "-1")] {
            check(user, none(), Err(&format!("user {number} is out of range")));
        }
        check("web:4294967295", none(), Err("group 4294967295 is out of range"));
        check("broken", none(), Err("unable to find user broken"));
        for uid in [-1, 1 << 32, i64::from(u32::MAX)] {
            let text = format!("user {uid} is out of range");
            check("web", SecurityContext { run_as_user: Some(uid), ..none() }, Err(&text));
        }
        check("web", SecurityContext { run_as_group: Some(-1), ..none() }, Err("group -1 is out of range"));
        check("web", SecurityContext { supplemental_groups: vec![1 << 32], ..none() }, Err("is out of range"));
    }

    /// "Indicates that the container must run as a non-root user" (SecurityContext.runAsNonRoot).
    #[test]
    fn a_user_that_must_not_be_root_is_not_by_any_name() {
        let strict = || SecurityContext { run_as_non_root: true, ..SecurityContext::default() };
        for root in ["", "0", "00", "+0", "root", "toor", "0:33"] {
            check(root, strict(), Err("container has runAsNonRoot and its user"));
        }
        check("web", SecurityContext { run_as_user: Some(0), ..strict() }, Err("its user 0 is root (uid 0)"));
        check("web", strict(), Ok((33, 34, &[34, 7])));
        check("root", SecurityContext { run_as_user: Some(5), ..strict() }, Ok((5, 0, &[0])));
    }
}
