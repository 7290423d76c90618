//! What went through a pod's network interfaces.

/// Counters of an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) received: Counters,
    pub(crate) sent: Counters,
}

/// One direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) bytes: u64,
    pub(crate) packets: u64,
    pub(crate) errors: u64,
    pub(crate) dropped: u64,
}

/// The interfaces that a process sees; none when it is gone. Blocking.
pub(crate) fn of_process(pid: u32) -> Vec<Interface> {
    interfaces(&std::fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default())
}

/// The interfaces of the node, that of the default route first. The ports of a bridge, which are those of pods as a rule, are left out: what
/// passes them is of others. Blocking.
pub(crate) fn of_node() -> Vec<Interface> {
    let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let mut all = interfaces(&text("/proc/self/net/dev"));
    all.retain(|interface| !std::path::Path::new("/sys/class/net").join(&interface.name).join("brport").exists());
    let first = default_route(&text("/proc/self/net/route")).map(str::to_owned);
    all.sort_by_key(|interface| Some(&interface.name) != first.as_ref());
    all
}

/// The interface of the default route (proc_net_route: name, destination and gateway in hexadecimal digits).
fn default_route(routes: &str) -> Option<&str> {
    routes.lines().skip(1).find_map(|line| {
        let mut words = line.split_whitespace();
        let name = words.next()?;
        (words.next()? == "00000000").then_some(name)
    })
}

/// All interfaces of `/proc/net/dev` but the loopback one.
fn interfaces(text: &str) -> Vec<Interface> {
    let parse = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        let numbers: Vec<u64> = rest.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let direction = |at: usize| {
            let [bytes, packets, errors, dropped] = *numbers.get(at..at + 4)? else { return None };
            Some(Counters { bytes, packets, errors, dropped })
        };
        Some(Interface { name: name.trim().to_owned(), received: direction(0)?, sent: direction(8)? })
    };
    text.lines().skip(2).filter_map(parse).filter(|interface| interface.name != "lo").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_both_directions() {
        let text = "Inter-|   Receive |  Transmit\n face |bytes\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n\
                    eth0: 100 10 1 2 0 0 0 0 200 20 3 4 0 0 0 0\n";
        let counters = |bytes, packets, errors, dropped| Counters { bytes, packets, errors, dropped };
        let eth0 = Interface { name: "eth0".to_owned(), received: counters(100, 10, 1, 2), sent: counters(200, 20, 3, 4) };
        assert_eq!(interfaces(text), [eth0]);
        assert_eq!(interfaces(""), []);
    }

    #[test]
    fn the_default_route_has_an_interface() {
        let routes = "Iface Destination Gateway Flags\neth1 0002A8C0 00000000 0001\neth0 00000000 0102A8C0 0003\n";
        assert_eq!(default_route(routes), Some("eth0"));
        assert_eq!(default_route("Iface Destination Gateway Flags\n"), None);
    }
}
