//! Standard streams belong to the user of the process that has them, so that it can open `/dev/stdout` and `/proc/self/fd/1` by name: many
//! images make their log a link to one of these.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, chown};
use std::path::{Path, PathBuf};

use crate::api::IdRange;

/// The number of `/dev/null`, which belongs to nobody in particular.
const NULL: (u64, u64) = (1, 3);

/// Gives the streams of the process `owner`, or of this one, to the user `uid` of the container. A stream that cannot be given away stays as it is:
/// what goes through it does not depend on this.
pub(super) fn give(owner: Option<i32>, uid: u32, users: Option<IdRange>) {
    let (user, group) = ids(uid, users);
    for stream in streams_of(owner) {
        if fs::metadata(&stream).is_ok_and(|metadata| !is_null(&metadata)) {
            let _ = chown(&stream, Some(user), group);
        }
    }
}

/// Owner and group of the streams for the node. Root of a user namespace has its rights over what has both from there.
fn ids(uid: u32, users: Option<IdRange>) -> (u32, Option<u32>) {
    match users {
        Some(range) => (range.host.saturating_add(uid.min(range.size.saturating_sub(1))), Some(range.host)),
        None => (uid, None),
    }
}

fn streams_of(owner: Option<i32>) -> impl Iterator<Item = PathBuf> {
    let process = owner.map_or("self".to_owned(), |pid| pid.to_string());
    (0..3).map(move |stream| Path::new("/proc").join(&process).join("fd").join(stream.to_string()))
}

fn is_null(metadata: &fs::Metadata) -> bool {
    let number = (nix::sys::stat::major(metadata.rdev()), nix::sys::stat::minor(metadata.rdev()));
    metadata.file_type().is_char_device() && number == NULL
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn owners() {
        let check = |uid, users, expected| assert_eq!(ids(uid, users), expected);
        check(1000, None, (1000, None));
        let users = Some(IdRange { host: 65536, size: 65536 });
        check(0, users, (65536, Some(65536)));
        check(1000, users, (66536, Some(65536)));
        // Never somebody outside of the range.
        check(u32::MAX, users, (131_071, Some(65536)));
    }

    #[test]
    fn null_is_left_alone() {
        assert!(is_null(&fs::metadata("/dev/null").unwrap()));
        assert!(!is_null(&fs::metadata("/dev/zero").unwrap()));
        assert!(!is_null(&fs::metadata("/").unwrap()));
    }
}
