//! Mount options, as PersistentVolumes name them (`mountOptions`).

use nix::mount::MsFlags;

/// Mount options as the kernel takes them: flags, and what the file system understands. Words for programs that mount are left out (mount(8)).
pub fn flags(options: &[String]) -> (MsFlags, String) {
    let (mut flags, mut others) = (MsFlags::empty(), Vec::new());
    for option in options.iter().flat_map(|option| option.split(',')).map(str::trim).filter(|option| !option.is_empty()) {
        let (flag, on) = match option {
            "ro" => (MsFlags::MS_RDONLY, true),
            "rw" => (MsFlags::MS_RDONLY, false),
            "nosuid" => (MsFlags::MS_NOSUID, true),
            "suid" => (MsFlags::MS_NOSUID, false),
            "nodev" => (MsFlags::MS_NODEV, true),
            "dev" => (MsFlags::MS_NODEV, false),
            "noexec" => (MsFlags::MS_NOEXEC, true),
            "exec" => (MsFlags::MS_NOEXEC, false),
            "sync" => (MsFlags::MS_SYNCHRONOUS, true),
            "async" => (MsFlags::MS_SYNCHRONOUS, false),
            "dirsync" => (MsFlags::MS_DIRSYNC, true),
            "noatime" => (MsFlags::MS_NOATIME, true),
            "atime" => (MsFlags::MS_NOATIME, false),
            "nodiratime" => (MsFlags::MS_NODIRATIME, true),
            "diratime" => (MsFlags::MS_NODIRATIME, false),
            "relatime" => (MsFlags::MS_RELATIME, true),
            "norelatime" => (MsFlags::MS_RELATIME, false),
            "strictatime" => (MsFlags::MS_STRICTATIME, true),
            "lazytime" => (MsFlags::MS_LAZYTIME, true),
            "defaults" | "_netdev" | "nofail" | "auto" | "noauto" => continue,
            option if option.starts_with("x-") => continue,
            other => {
                others.push(other);
                continue;
            }
        };
        flags.set(flag, on);
    }
    (flags, others.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_mounts() {
        let check = |options: &[&str], expected: MsFlags, others: &str| {
            let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
            assert_eq!(flags(&options), (expected, others.to_owned()), "{options:?}");
        };
        check(&[], MsFlags::empty(), "");
        check(&["defaults", "x-systemd.automount", "noatime"], MsFlags::MS_NOATIME, "");
        check(&["nodev,nosuid", "ro", "rw"], MsFlags::MS_NODEV | MsFlags::MS_NOSUID, "");
        check(&["data=journal", "noexec", "discard"], MsFlags::MS_NOEXEC, "data=journal,discard");
    }
}
