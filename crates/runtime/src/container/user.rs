//! Who a container's process is: the image's or the pod's user, resolved with the files of the image.

use std::io::Read;
use std::path::Path;

use nix::fcntl::OFlag;

use crate::api::{Error, Result, SecurityContext};
use crate::images::tree::Tree;

/// Most that is read of /etc/passwd and /etc/group, bytes.
const FILE_LIMIT: u64 = 1 << 20;

/// A resolved user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The primary group included.
    pub(crate) groups: Vec<u32>,
}

/// Resolves the user of a container with the root file system at `rootfs`.
pub(crate) fn resolve(rootfs: &Path, image_user: &str, security: &SecurityContext) -> Result<User> {
    let tree = Tree::open(rootfs).map_err(|error| Error::Create(format!("root file system: {error}")))?;
    decide(&read(&tree, "etc/passwd"), &read(&tree, "etc/group"), image_user, security)
}

/// The home directory of a user, by the files of the root that this process sees.
pub(super) fn home(uid: u32) -> String {
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

fn decide(passwd: &str, group: &str, image_user: &str, security: &SecurityContext) -> Result<User> {
    let (name, group_name) = match security.run_as_user {
        Some(uid) => (uid.to_string(), None),
        None => match image_user.split_once(':') {
            Some((user, group)) => (user.to_owned(), Some(group)),
            None => (image_user.to_owned(), None),
        },
    };
    let name = if name.is_empty() { "0".to_owned() } else { name };
    let entries: Vec<Vec<&str>> = passwd.lines().map(|line| line.split(':').collect()).collect();
    let number = name.parse::<u32>().ok();
    let entry = entries.iter().find(|e| match number {
        Some(uid) => field(e, 2) == Some(uid),
        None => e.first() == Some(&name.as_str()),
    });
    let uid = number
        .or_else(|| entry.and_then(|e| field(e, 2)))
        .ok_or_else(|| Error::Create(format!("unable to find user {name}: no matching entries in passwd file")))?;
    let gid = match (security.run_as_group, group_name) {
        (Some(gid), _) => u32::try_from(gid).map_err(|_| Error::Create(format!("group {gid} is out of range")))?,
        (None, Some(group_name)) => find_group(group, group_name)?,
        (None, None) => entry.and_then(|e| field(e, 3)).unwrap_or(0),
    };
    let mut groups = vec![gid];
    if let Some(login) = entry.and_then(|e| e.first()).filter(|_| !security.strict_groups) {
        groups.extend(memberships(group, login));
    }
    for extra in &security.supplemental_groups {
        groups.push(u32::try_from(*extra).map_err(|_| Error::Create(format!("supplemental group {extra} is out of range")))?);
    }
    let mut seen = std::collections::HashSet::new();
    groups.retain(|group| seen.insert(*group));
    Ok(User { uid, gid, groups })
}

fn field(entry: &[&str], index: usize) -> Option<u32> {
    entry.get(index)?.parse().ok()
}

fn find_group(group: &str, name: &str) -> Result<u32> {
    if let Ok(gid) = name.parse() {
        return Ok(gid);
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

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/var/www:/bin/false\n";
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
}
