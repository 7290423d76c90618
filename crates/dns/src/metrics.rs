//! The figures of the cluster DNS on the node's page, under CoreDNS' names: its dashboards go by them.

use std::net::SocketAddr;
use std::sync::LazyLock;

use base::metrics::Page;
use hickory_proto::op::ResponseCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    server: &'static str,
    zone: &'static str,
    proto: &'static str,
    /// `1` is IPv4, `2` IPv6.
    family: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Response {
    server: &'static str,
    zone: &'static str,
    rcode: &'static str,
}

/// There is one server, for all zones.
const SERVER: &str = "dns://:53";
const ZONE: &str = ".";

static REQUESTS: LazyLock<Family<Request, Counter>> = LazyLock::new(|| {
    let help = "Counter of DNS requests made per zone, protocol and family";
    Page::Node.register("coredns_dns_requests", help, Family::default())
});
static RESPONSES: LazyLock<Family<Response, Counter>> =
    LazyLock::new(|| Page::Node.register("coredns_dns_responses", "Counter of response status codes", Family::default()));

/// Counts the messages that come by a protocol to an address.
pub(crate) fn requests(proto: &'static str, address: SocketAddr) -> Counter {
    let family = if address.is_ipv4() { "1" } else { "2" };
    REQUESTS.get_or_create(&Request { server: SERVER, zone: ZONE, proto, family }).clone()
}

/// Counts the answers with a code.
pub(crate) fn responses(code: ResponseCode) -> Counter {
    RESPONSES.get_or_create(&Response { server: SERVER, zone: ZONE, rcode: mnemonic(code) }).clone()
}

/// The code of a message as it is sent, without the part of it that EDNS has elsewhere.
pub(crate) fn code(message: &[u8]) -> ResponseCode {
    ResponseCode::from_low(message.get(3).map_or(0, |flags| flags & 0x0f))
}

/// The name of a code in the registry of DNS RCODEs.
fn mnemonic(code: ResponseCode) -> &'static str {
    match code {
        ResponseCode::NoError => "NOERROR",
        ResponseCode::FormErr => "FORMERR",
        ResponseCode::ServFail => "SERVFAIL",
        ResponseCode::NXDomain => "NXDOMAIN",
        ResponseCode::NotImp => "NOTIMP",
        ResponseCode::Refused => "REFUSED",
        ResponseCode::BADVERS => "BADVERS",
        _ => "OTHER",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_names_of_the_registry() {
        let check = |flags: u8, expected: &str| assert_eq!(mnemonic(code(&[0, 0, 0x81, flags])), expected, "{flags}");
        check(0x80, "NOERROR");
        check(0x82, "SERVFAIL");
        check(0x83, "NXDOMAIN");
        check(0x05, "REFUSED");
        check(0x09, "OTHER");
        assert_eq!(code(&[]), ResponseCode::NoError);
    }
}
