//! Kernel parameters that pods have values of their own of (namespaces(7)).

/// The namespace that has a value of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// Of the network.
    Net,
    /// Of System V IPC and of POSIX message queues.
    Ipc,
}

/// What the names of such parameters begin with.
const PREFIXES: &[(&str, Namespace)] =
    &[("net.", Namespace::Net), ("kernel.shm", Namespace::Ipc), ("kernel.msg", Namespace::Ipc), ("fs.mqueue.", Namespace::Ipc)];

/// The one that others begin with, too, which pods do not set.
const SEMAPHORES: &str = "kernel.sem";

/// The namespace of a parameter, by its name with dots or slashes; none for one of the whole machine.
pub fn namespace(name: &str) -> Option<Namespace> {
    let name = name.replace('/', ".");
    if name == SEMAPHORES { Some(Namespace::Ipc) } else { all_with(&name) }
}

/// The namespace of all parameters whose names begin so, with dots or slashes; none where one of them may be of the whole machine.
pub fn all_with(prefix: &str) -> Option<Namespace> {
    let prefix = prefix.replace('/', ".");
    PREFIXES.iter().find(|(begins, _)| prefix.starts_with(begins)).map(|(_, namespace)| *namespace)
}

/// The file of a parameter, below `/proc/sys`. Dots and slashes change places where a dot comes first (sysctl(8)): `net.ipv4.conf.eth0/100.rp_filter` and
/// `net/ipv4/conf/eth0.100/rp_filter` are of the device `eth0.100`. None for a name that leads elsewhere.
pub fn file(name: &str) -> Option<String> {
    let is_path = name.find(['.', '/']).is_some_and(|first| name[first..].starts_with('/'));
    let swapped = |letter| match letter {
        '.' => '/',
        '/' => '.',
        letter => letter,
    };
    let path: String = if is_path { name.to_owned() } else { name.chars().map(swapped).collect() };
    path.split('/').all(|part| !["", ".", ".."].contains(&part)).then_some(path)
}

/// Whether a parameter is of a network device that the pod gets when it is connected to the network, not of all devices or of those that are always there.
pub fn of_device(name: &str) -> bool {
    let path = file(name).unwrap_or_default();
    let mut parts = path.split('/');
    let [net, _, kind, device] = [(); 4].map(|()| parts.next().unwrap_or_default());
    net == "net" && ["conf", "neigh"].contains(&kind) && !["", "all", "default", "lo"].contains(&device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_parameters_are_a_pods_own() {
        let check = |name: &str, one: Option<Namespace>, all: Option<Namespace>| {
            assert_eq!((namespace(name), all_with(name)), (one, all), "{name}");
        };
        check("net.ipv4.tcp_rmem", Some(Namespace::Net), Some(Namespace::Net));
        check("net/ipv4/tcp_rmem", Some(Namespace::Net), Some(Namespace::Net));
        check("kernel.shm_rmid_forced", Some(Namespace::Ipc), Some(Namespace::Ipc));
        check("kernel/msgmax", Some(Namespace::Ipc), Some(Namespace::Ipc));
        check("fs.mqueue.msg_max", Some(Namespace::Ipc), Some(Namespace::Ipc));
        check("kernel.sem", Some(Namespace::Ipc), None);
        for name in ["kernel.sem_next_id", "kernel.core_pattern", "fs.mqueue", "net", "vm.swappiness", "../net.x", ""] {
            check(name, None, None);
        }
    }

    #[test]
    fn files_of_parameters() {
        let check = |name: &str, expected: Option<&str>, is_of_device: bool| {
            assert_eq!((file(name).as_deref(), of_device(name)), (expected, is_of_device), "{name}");
        };
        check("kernel.shm_rmid_forced", Some("kernel/shm_rmid_forced"), false);
        check("kernel/shm_rmid_forced", Some("kernel/shm_rmid_forced"), false);
        check("net.ipv4.conf.eth0.rp_filter", Some("net/ipv4/conf/eth0/rp_filter"), true);
        check("net.ipv4.conf.eth0/100.rp_filter", Some("net/ipv4/conf/eth0.100/rp_filter"), true);
        check("net/ipv6/neigh/eth0.100/retrans_time_ms", Some("net/ipv6/neigh/eth0.100/retrans_time_ms"), true);
        for device in ["all", "default", "lo"] {
            check(&format!("net.ipv4.conf.{device}.rp_filter"), Some(&format!("net/ipv4/conf/{device}/rp_filter")), false);
        }
        check("net.ipv4.conf", Some("net/ipv4/conf"), false);
        for name in ["net/../kernel/core_pattern", "net..x", "net.//", "/etc/passwd", "net/", ""] {
            check(name, None, false);
        }
    }
}
