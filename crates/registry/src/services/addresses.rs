//! Cluster addresses of a Service, one of each of its families.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use apimachinery::field::{Error, Errors, Path};
use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::book::{Book, Taken};
use super::{Cluster, OWN, families, texts};

/// No more addresses of a range are tried.
const SEARCHED: u128 = 1 << 16;

/// Gives the service an address of each family that it has none of, and checks those that it asks for.
pub(super) fn complete(
    spec: &mut Map<String, Value>,
    old: Option<&Value>,
    (book, path): (&Book, &str),
    cluster: &Cluster<'_>,
    wanted: &mut Taken,
    errors: &mut Errors,
) {
    let single = spec.get("clusterIP").and_then(Value::as_str).filter(|address| !address.is_empty()).map(str::to_owned);
    let mut all = texts(spec, "clusterIPs");
    if all.is_empty() {
        all.extend(single);
    }
    if all.first().is_some_and(|address| address == "None") {
        spec.insert("clusterIP".into(), "None".into());
        spec.insert("clusterIPs".into(), json!(["None"]));
        return;
    }
    let kept = old.and_then(Value::as_object).map(|old| texts(old, "clusterIPs")).unwrap_or_default();
    let at = Path::new("spec").child("clusterIPs");
    let taken = |address: &IpAddr| book.has_address(address, path);
    let own = if OWN.contains(&path) { cluster.own } else { &[] };
    for (index, asked) in all.iter().enumerate().filter(|(index, asked)| kept.get(*index) != Some(*asked)) {
        check(asked, index, &all, (&cluster.ranges, own), taken, errors);
    }
    for family in texts(spec, "ipFamilies").iter().skip(all.len()) {
        let of_family = cluster.ranges.iter().filter(|range| families::family(&range.addr()) == family);
        match of_family.into_iter().find_map(|range| free_address(*range, taken)) {
            Some(address) => all.push(address.to_string()),
            None => errors.push(Error::internal(&at, "failed to allocate a serviceIP: range is full")),
        }
    }
    wanted.addresses.extend(all.iter().filter_map(|address| address.parse::<IpAddr>().ok()));
    if let Some(first) = all.first() {
        spec.insert("clusterIP".into(), first.as_str().into());
        spec.insert("clusterIPs".into(), json!(all));
    }
}

fn check(
    asked: &str,
    index: usize,
    all: &[String],
    (ranges, own): (&[IpNet], &[IpNet]),
    taken: impl Fn(&IpAddr) -> bool,
    errors: &mut Errors,
) {
    let path = Path::new("spec").child("clusterIPs");
    let Ok(address) = asked.parse::<IpAddr>() else {
        let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        errors.push(Error::invalid(&path.index(index), asked, detail));
        return;
    };
    let usable = |range: &IpNet| range.contains(&address) && address != range.network();
    if !ranges.iter().chain(own).any(usable) {
        let same = ranges.iter().filter(|range| range.addr().is_ipv4() == address.is_ipv4());
        let valid = same.map(IpNet::to_string).collect::<Vec<_>>().join(", ");
        let detail = format!(
            "failed to allocate IP {asked}: the provided IP ({asked}) is not in the valid range. The range of valid IPs is {valid}"
        );
        errors.push(Error::invalid(&path, json!(all), detail));
    } else if taken(&address) {
        let detail = format!("failed to allocate IP {asked}: provided IP is already allocated");
        errors.push(Error::invalid(&path, json!(all), detail));
    }
}

/// A free address. The first part of the range is left to addresses that people choose (KEP-3070), unless all else is taken.
fn free_address(range: IpNet, taken: impl Fn(&IpAddr) -> bool) -> Option<IpAddr> {
    let bits = range.max_prefix_len() - range.prefix_len();
    let size = 1_u128.checked_shl(u32::from(bits)).unwrap_or(u128::MAX).min(SEARCHED);
    let reserved = (size / 16).clamp(16, 256).min(size / 2);
    let whole = u32::from(bits) <= SEARCHED.trailing_zeros();
    // The last address of IPv4 is that of broadcasts.
    let last = size - u128::from(range.addr().is_ipv4() && whole);
    let at = |offset: u128| match range.network() {
        IpAddr::V4(base) => IpAddr::V4(Ipv4Addr::from_bits(base.to_bits() + u32::try_from(offset).unwrap_or(0))),
        IpAddr::V6(base) => IpAddr::V6(Ipv6Addr::from_bits(base.to_bits() + offset)),
    };
    // Start somewhere else each time, so that a freed address is not given out at once again.
    let span = last.saturating_sub(reserved).max(1);
    let start = uuid::Uuid::new_v4().as_u128() % span;
    let upper = (0..span).map(|step| reserved + (start + step) % span);
    upper.chain(1..reserved).map(at).find(|address| !taken(address))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_full_range_has_no_address() {
        let range: IpNet = "10.0.0.0/30".parse().unwrap();
        let all: BTreeSet<IpAddr> = (1..3).map(|host| IpAddr::from([10, 0, 0, host])).collect();
        assert_eq!(free_address(range, |address| all.contains(address)), None);
        assert!(free_address(range, |_| false).is_some());
    }

    #[test]
    fn the_first_part_is_left_to_people() {
        for (range, reserved) in [("10.43.0.0/16", "10.43.0.255"), ("fd43::/112", "fd43::ff"), ("10.43.0.0/24", "10.43.0.15")] {
            let range: IpNet = range.parse().unwrap();
            let reserved: IpAddr = reserved.parse().unwrap();
            for _ in 0..50 {
                let found = free_address(range, |_| false).unwrap();
                assert!(range.contains(&found) && found > reserved, "{found}");
            }
            // When all else is taken, it is used.
            let found = free_address(range, |address| *address > reserved).unwrap();
            assert!(found <= reserved && found != range.network(), "{found}");
        }
    }
}
