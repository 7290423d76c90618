//! Rates of links: token buckets, and devices that hold back what a link has received.

use super::{Links, NEW_LINK, UP, link_header};
use crate::netlink::{CREATE, EXCL, Error, REPLACE};

// linux/rtnetlink.h, linux/pkt_sched.h, linux/pkt_cls.h, linux/tc_act/tc_mirred.h
const KIND: u16 = 1;
const OPTIONS: u16 = 2;
const ROOT: u32 = 0xffff_ffff;
const INGRESS: u32 = 0xffff_fff1;
const INGRESS_HANDLE: u32 = 0xffff_0000;
const TBF_PARMS: u16 = 1;
const TBF_RATE64: u16 = 4;
const TBF_BURST: u16 = 6;
const LINKLAYER_ETHERNET: u8 = 1;
const U32_SEL: u16 = 5;
const U32_ACT: u16 = 7;
const U32_TERMINAL: u8 = 1;
const MIRRED_PARMS: u16 = 2;
const STOLEN: i32 = 4;
const REDIRECT: i32 = 1;
const ALL_PROTOCOLS: u16 = 3;

/// Bytes that a bucket holds at least: many packets of any link.
const BURST_MIN: u64 = 32 * 1024;
/// Bytes that wait for tokens at least.
const QUEUE_MIN: u64 = 64 * 1024;

/// A bucket of tokens, one for each byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bucket {
    /// Bytes a second.
    rate: u64,
    /// Bytes that it holds: what goes out at once after a rest.
    burst: u32,
    /// Bytes that wait; more are dropped, from which TCP learns.
    queue: u32,
}

impl Bucket {
    /// For a rate in bits a second: what comes in 10 ms goes out at once, and what waits waits 50 ms. Of a small rate some packets fit.
    fn of(bits: u64) -> Self {
        let rate = (bits / 8).max(1);
        let bytes = |all: u64| u32::try_from(all).unwrap_or(u32::MAX);
        Self { rate, burst: bytes((rate / 100).max(BURST_MIN)), queue: bytes((rate / 20).max(QUEUE_MIN)) }
    }
}

impl Links {
    /// Makes a device through which what other links receive can go (CONFIG_IFB), switched on.
    pub(crate) fn make_ifb(&mut self, name: &str) -> Result<(), Error> {
        self.0.request("make the device that shapes", (NEW_LINK, CREATE | EXCL), &link_header(0, UP), |b| {
            b.string(libc::IFLA_IFNAME, name);
            b.nested(libc::IFLA_LINKINFO, |b| b.string(1, "ifb"));
        })
    }

    /// Sends from the link at most `rate` bits a second (CONFIG_NET_SCH_TBF).
    pub(crate) fn limit_rate(&mut self, link: u32, rate: u64) -> Result<(), Error> {
        let bucket = Bucket::of(rate);
        self.0.request("limit the rate", (libc::RTM_NEWQDISC, CREATE | REPLACE), &traffic(link, 0, ROOT, 0), |b| {
            b.string(KIND, "tbf");
            b.nested(OPTIONS, |b| {
                b.attr(TBF_PARMS, &parameters(bucket));
                b.attr(TBF_RATE64, &bucket.rate.to_ne_bytes());
                b.u32(TBF_BURST, bucket.burst);
            });
        })
    }

    /// What the link receives goes through the device `through` first (CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_U32, CONFIG_NET_ACT_MIRRED).
    pub(crate) fn redirect_received(&mut self, link: u32, through: u32) -> Result<(), Error> {
        let received = traffic(link, INGRESS_HANDLE, INGRESS, 0);
        self.0
            .request("look at what is received", (libc::RTM_NEWQDISC, CREATE | EXCL), &received, |b| b.string(KIND, "ingress"))?;
        let priority_and_protocol = 1 << 16 | u32::from(ALL_PROTOCOLS.to_be());
        let filter = traffic(link, 0, INGRESS_HANDLE, priority_and_protocol);
        self.0.request("redirect what is received", (libc::RTM_NEWTFILTER, CREATE | EXCL), &filter, |b| {
            b.string(KIND, "u32");
            b.nested(OPTIONS, |b| {
                b.attr(U32_SEL, &everything());
                b.nested(U32_ACT, |b| {
                    b.nested(1, |b| {
                        b.string(KIND, "mirred");
                        b.nested(OPTIONS, |b| b.attr(MIRRED_PARMS, &mirred(through)));
                    });
                });
            });
        })
    }
}

/// `struct tcmsg`
fn traffic(link: u32, handle: u32, parent: u32, info: u32) -> Vec<u8> {
    [[0; 4], link.to_ne_bytes(), handle.to_ne_bytes(), parent.to_ne_bytes(), info.to_ne_bytes()].concat()
}

/// `struct tc_tbf_qopt`: two of `struct tc_ratespec`, for the rate and no peak rate, the queue, and two that are not used beside TCA_TBF_BURST.
fn parameters(bucket: Bucket) -> Vec<u8> {
    let rate = u32::try_from(bucket.rate).unwrap_or(u32::MAX);
    let mut bytes = vec![0, LINKLAYER_ETHERNET, 0, 0, 0, 0, 0, 0];
    bytes.extend(rate.to_ne_bytes());
    bytes.extend([0; 12]);
    bytes.extend(bucket.queue.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes
}

/// `struct tc_u32_sel` with one key that every packet has.
fn everything() -> Vec<u8> {
    let mut bytes = vec![U32_TERMINAL, 0, 1];
    bytes.resize(32, 0);
    bytes
}

/// `struct tc_mirred`
fn mirred(through: u32) -> Vec<u8> {
    [0, 0, STOLEN.cast_unsigned(), 0, 0, REDIRECT.cast_unsigned(), through].map(u32::to_ne_bytes).concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_of_rates() {
        let check = |bits, rate, burst, queue| assert_eq!(Bucket::of(bits), Bucket { rate, burst, queue }, "{bits} bit/s");
        check(1_000, 125, 32 * 1024, 64 * 1024);
        check(10_000_000, 1_250_000, 32 * 1024, 64 * 1024);
        check(1_000_000_000, 125_000_000, 1_250_000, 6_250_000);
        check(1_000_000_000_000_000, 125_000_000_000_000, u32::MAX, u32::MAX);
    }
}
