//! IP addresses and ranges (upstream: `pkg/util/validation/ip.go`, in its strict form: KEP-4858).

use std::net::IpAddr;

use apimachinery::field::{Error, Errors, Path};
use apimachinery::names::{self, without_leading_zeros as lenient};
use apimachinery::text::quote;
use ipnet::IpNet;

/// A valid IP address.
pub(crate) fn ip(path: &Path, value: &str, errors: &mut Errors) {
    errors.invalid_each(path, value, names::ip(value));
}

/// A range as its text says, bits beyond the prefix included; numbers with zeros before them are none.
fn net(value: &str) -> Option<IpNet> {
    let (address, bits) = value.split_once('/')?;
    let plain = bits == "0" || (!bits.starts_with('0') && bits.bytes().all(|b| b.is_ascii_digit()));
    IpNet::new(address.parse().ok()?, bits.parse().ok().filter(|_| plain)?).ok()
}

/// A valid range of addresses.
pub(crate) fn cidr(path: &Path, value: &str, errors: &mut Errors) {
    let leniently = || value.split_once('/').and_then(|(ip, bits)| net(&format!("{}/{}", lenient(ip), lenient(bits))));
    let detail = match net(value) {
        Some(IpNet::V6(net)) if net.addr().to_ipv4_mapped().is_some() => "must not have an IPv4-mapped IPv6 address",
        Some(net) if net.addr() != net.network() => "must not have bits set beyond the prefix length",
        Some(_) => return,
        None if leniently().is_some() => "must not have leading 0s in IP or prefix length",
        None => "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
    };
    errors.push(Error::invalid(path, value, detail));
}

/// A range in its canonical form, as new kinds demand it.
pub(crate) fn canonical_cidr(path: &Path, value: &str, errors: &mut Errors) {
    let before = errors.len();
    cidr(path, value, errors);
    if let Some(net) = net(value).filter(|net| errors.len() == before && net.to_string() != value) {
        let detail = format!("must be in canonical form ({})", quote(&net.to_string()));
        errors.push(Error::invalid(path, value, detail));
    }
}

/// The address of an interface with the length of its network.
pub(crate) fn interface_address(path: &Path, value: &str, errors: &mut Errors) {
    match net(value) {
        None => {
            let detail = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)";
            errors.push(Error::invalid(path, value, detail));
        }
        Some(net) if net.to_string() != value => {
            let detail = format!("must be in canonical form ({})", quote(&net.to_string()));
            errors.push(Error::invalid(path, value, detail));
        }
        Some(_) => {}
    }
}

/// Says so where an IPv6 range is written in another way than RFC 5952 asks for.
pub(crate) fn warn_of_cidr(path: &Path, value: &str, warnings: &mut Vec<String>) {
    if let Some(net @ IpNet::V6(_)) = net(value).filter(|net| net.to_string() != value) {
        let (value, wanted) = (quote(value), quote(&net.to_string()));
        warnings.push(format!("{path}: IPv6 CIDR value {value} should be in RFC 5952 canonical format ({wanted})"));
    }
}

/// The same of an IPv6 address.
pub(crate) fn warn_of_ip(path: &Path, value: &str, warnings: &mut Vec<String>) {
    if let Some(address @ IpAddr::V6(_)) = value.parse::<IpAddr>().ok().filter(|address| address.to_string() != value) {
        let (value, wanted) = (quote(value), quote(&address.to_string()));
        warnings.push(format!("{path}: IPv6 address {value} should be in RFC 5952 canonical format ({wanted})"));
    }
}

/// Whether `inner` is a part of `outer` and not all of it; none when one of them is no range.
pub(crate) fn is_strict_subset(inner: &str, outer: &str) -> Option<bool> {
    let (inner, outer) = (net(inner)?, net(outer)?);
    Some(outer.contains(&inner) && outer.prefix_len() < inner.prefix_len())
}

/// An address that other machines can reach: for endpoints and external addresses.
pub(crate) fn non_special_ip(path: &Path, value: &str, errors: &mut Errors) {
    let Ok(address) = value.parse::<IpAddr>() else {
        errors.push(Error::invalid(path, value, "must be a valid IP address"));
        return;
    };
    let (link_local, link_local_multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[0] == 0xff02),
    };
    let rules = [
        (address.is_unspecified(), format!("may not be unspecified ({value})")),
        (address.is_loopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)".to_owned()),
        (link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned()),
        (link_local_multicast, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".to_owned()),
    ];
    errors.extend(rules.into_iter().filter(|(broken, _)| *broken).map(|(_, detail)| Error::invalid(path, value, detail)));
}

/// `IPv4` or `IPv6`, if it is an address.
pub(crate) fn family(value: &str) -> Option<&'static str> {
    value.parse::<IpAddr>().ok().map(|address| if address.is_ipv4() { "IPv4" } else { "IPv6" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rule: fn(&Path, &str, &mut Errors), value: &str, expected: &str) {
        let mut errors = Errors::new();
        rule(&Path::new("ip"), value, &mut errors);
        let prefix = format!("ip: Invalid value: \"{value}\": ");
        assert_eq!(errors.to_string().trim_start_matches(&prefix), expected);
    }

    #[test]
    fn addresses() {
        check(ip, "10.0.0.1", "");
        check(ip, "fd00::1", "");
        check(ip, "10.0.0.256", "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
        check(ip, "", "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
        check(ip, "010.0.0.01", "must not have leading 0s");
        check(ip, "::ffff:10.0.0.1", "must not be an IPv4-mapped IPv6 address");
    }

    #[test]
    fn ranges() {
        check(cidr, "10.0.0.0/8", "");
        check(cidr, "fd00::/64", "");
        check(cidr, "10.0.0.1", "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)");
        check(cidr, "10.0.0.0/08", "must not have leading 0s in IP or prefix length");
        check(cidr, "10.0.0.1/8", "must not have bits set beyond the prefix length");
        check(cidr, "010.0.0.0/8", "must not have leading 0s in IP or prefix length");
    }

    #[test]
    fn canonical_ranges() {
        check(canonical_cidr, "10.0.0.0/8", "");
        check(canonical_cidr, "fd00:0::/64", "must be in canonical form (\"fd00::/64\")");
        check(canonical_cidr, "10.0.0.1/8", "must not have bits set beyond the prefix length");
        check(interface_address, "10.9.8.7/24", "");
        check(interface_address, "FD00::1/64", "must be in canonical form (\"fd00::1/64\")");
        check(interface_address, "10.9.8.7", "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)");
        assert_eq!(is_strict_subset("10.1.0.0/16", "10.0.0.0/8"), Some(true));
        assert_eq!(is_strict_subset("10.0.0.0/8", "10.0.0.0/8"), Some(false));
        assert_eq!(is_strict_subset("11.0.0.0/16", "10.0.0.0/8"), Some(false));
        assert_eq!(is_strict_subset("fd00::/64", "10.0.0.0/8"), Some(false));
        let mut warnings = Vec::new();
        warn_of_cidr(&Path::new("c"), "FD00::/64", &mut warnings);
        warn_of_cidr(&Path::new("c"), "10.0.0.0/8", &mut warnings);
        assert_eq!(warnings, ["c: IPv6 CIDR value \"FD00::/64\" should be in RFC 5952 canonical format (\"fd00::/64\")"]);
    }

    #[test]
    fn special_addresses() {
        check(non_special_ip, "10.0.0.1", "");
        check(non_special_ip, "0.0.0.0", "may not be unspecified (0.0.0.0)");
        check(non_special_ip, "127.0.0.9", "may not be in the loopback range (127.0.0.0/8, ::1/128)");
        check(non_special_ip, "fe80::1", "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
        check(non_special_ip, "224.0.0.1", "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}
