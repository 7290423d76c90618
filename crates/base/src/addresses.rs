//! What kinds of addresses mean.

use std::net::IpAddr;

/// The metadata service of AWS, which is in no range that is a link's.
const METADATA: [u16; 8] = [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254];

/// Whether an address is this machine's alone or its link's, as those are where clouds tell machines their credentials, or that of no one machine.
/// What strangers say leads to no such address: whoever goes there for them sees what they cannot reach (RFC 6890).
#[must_use]
pub fn is_special(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.is_loopback() || v4.is_link_local() || v4.is_multicast() || v4.is_broadcast(),
        IpAddr::V6(v6) => {
            let is_alone = v6.is_unspecified() || v6.is_loopback() || v6.segments() == METADATA;
            is_alone || v6.is_unicast_link_local() || v6.is_multicast()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn special_addresses() {
        let check = |address: &str, expected: bool| assert_eq!(is_special(address.parse().unwrap()), expected, "{address}");
        for address in ["0.0.0.0", "0.1.2.3", "127.0.0.1", "127.9.9.9", "169.254.169.254", "224.0.0.1", "255.255.255.255"] {
            check(address, true);
            check(&format!("::ffff:{address}"), true);
        }
        for address in ["::", "::1", "fe80::1", "ff02::1", "fd00:ec2::254"] {
            check(address, true);
        }
        for address in ["10.0.0.1", "192.168.0.1", "8.8.8.8", "1.0.0.0", "fd00::1", "2001:db8::1", "::ffff:10.0.0.1"] {
            check(address, false);
        }
    }
}
