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
}
