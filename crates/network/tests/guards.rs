//! The bridge trusts no pod: a pod that forges frames gets nowhere with them. Each forged frame is followed by an honest one on the
//! same way; when that has arrived, the forged one would have.
#![allow(clippy::unwrap_used)]

mod common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use common::{Netns, isolate, sh, udp};
use network::{Options, PodNetwork};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, bind, send, socket};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 1);
const EVERYBODY: [u8; 6] = [0xff; 6];

struct Node {
    network: PodNetwork,
    runtime: tokio::runtime::Runtime,
    _directory: tempfile::TempDir,
}

struct Pod {
    netns: Netns,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
}

impl Node {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let cidrs = |texts: [&str; 2]| texts.map(|text| text.parse().unwrap()).to_vec();
        let pods = cidrs(["10.42.0.0/24", "fd42::/64"]);
        let mut options = Options::new(directory.path(), pods, cidrs(["10.43.0.0/16", "fd43::/112"]));
        options.holders = Vec::new();
        options.local_addresses = vec!["10.43.0.10".parse().unwrap()];
        let network = runtime.block_on(PodNetwork::start(options)).unwrap();
        Self { network, runtime, _directory: directory }
    }

    fn pod(&self, name: &str) -> Pod {
        let netns = Netns::new();
        let addresses = self.runtime.block_on(self.network.attach(name, &netns.path(), &network::Attachment::default())).unwrap();
        let [IpAddr::V4(v4), IpAddr::V6(v6)] = addresses[..] else { panic!("{addresses:?}") };
        Pod { netns, v4, v6 }
    }
}

/// The hardware address that goes with an address.
fn mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x0a, 0x58, a, b, c, d]
}

/// Sends a frame as it is by the interface of a namespace.
fn send_from(netns: &Netns, frame: Vec<u8>) {
    netns.run(move || {
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), None).unwrap();
        let links = nix::ifaddrs::getifaddrs().unwrap().filter(|link| link.interface_name == "eth0");
        let link = links.filter_map(|link| link.address?.as_link_addr().copied()).next().unwrap();
        bind(socket.as_raw_fd(), &link).unwrap();
        send(socket.as_raw_fd(), &frame, MsgFlags::empty()).unwrap();
    });
}

/// Sends a datagram as programs do.
fn say_from(netns: &Netns, to: SocketAddr, text: &'static [u8]) {
    netns.run(move || {
        let any: SocketAddr = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
        UdpSocket::bind(any).unwrap().send_to(text, to).unwrap();
    });
}

impl Pod {
    fn send(&self, frame: Vec<u8>) {
        send_from(&self.netns, frame);
    }

    fn say(&self, to: SocketAddr, text: &'static [u8]) {
        say_from(&self.netns, to, text);
    }
}

/// The hardware addresses of the node and of the neighbour on the link between them.
const UP: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OUT: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// A neighbour of the node at 192.0.2.2 and 2001:db8::2, who takes it for the way to everything.
fn neighbour() -> Netns {
    let outside = Netns::new();
    let peer = format!("type veth peer name eth0 address 02:00:00:00:00:02 netns {}", outside.path().display());
    sh(&format!("ip link add up0 address 02:00:00:00:00:01 {peer}"));
    sh("ip addr add 192.0.2.1/24 dev up0; ip addr add 2001:db8::1/64 dev up0 nodad; ip link set up0 up");
    outside.run(|| {
        sh("ip addr add 192.0.2.2/24 dev eth0; ip addr add 2001:db8::2/64 dev eth0 nodad; ip link set eth0 up");
        sh("ip route add default via 192.0.2.1; ip -6 route add default via 2001:db8::1")
    });
    outside
}

fn frame(to: [u8; 6], from: [u8; 6], kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes(), payload].concat()
}

/// The Internet checksum.
fn sum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// A datagram to port 7000; a checksum of 0 is none.
fn datagram(from: Ipv4Addr, to: Ipv4Addr, text: &[u8]) -> Vec<u8> {
    let length = |header: usize| ((header + text.len()) as u16).to_be_bytes();
    let udp = [&7001u16.to_be_bytes()[..], &7000u16.to_be_bytes(), &length(8), &[0, 0], text].concat();
    let mut ip = [&[0x45, 0][..], &length(28), &[0, 1, 0, 0, 64, 17, 0, 0], &from.octets(), &to.octets()].concat();
    let checksum = sum(&ip);
    ip[10..12].copy_from_slice(&checksum);
    [ip, udp].concat()
}

const SYN: u8 = 2;
const ACK: u8 = 16;

/// A segment of TCP without data, from port 7001 to port 7000, with the type of its frame.
fn segment(from: IpAddr, to: IpAddr, flags: u8) -> (u16, Vec<u8>) {
    let mut tcp =
        [&7001u16.to_be_bytes()[..], &7000u16.to_be_bytes(), &[0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 16, 0, 0, 0, 0, 0]].concat();
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let ends = [octets(from), octets(to)].concat();
    let checksum = sum(&[&ends[..], &[0, 6, 0, 20], &tcp].concat());
    tcp[16..18].copy_from_slice(&checksum);
    if from.is_ipv6() {
        return (0x86dd, [&[0x60, 0, 0, 0, 0, 20, 6, 64][..], &ends, &tcp].concat());
    }
    let mut ip = [&[0x45, 0, 0, 40, 0, 1, 0, 0, 64, 6, 0, 0][..], &ends].concat();
    let checksum = sum(&ip);
    ip[10..12].copy_from_slice(&checksum);
    (0x0800, [ip, tcp].concat())
}

/// The transport protocols of what comes to an address, until a datagram does.
fn protocols(heard: &OwnedFd, to: IpAddr) -> Vec<u8> {
    let mut seen = Vec::new();
    let mut buffer = [0; 2048];
    while seen.last() != Some(&17) {
        let length = nix::unistd::read(heard.as_raw_fd(), &mut buffer).unwrap();
        let packet = &buffer[14..length.max(14)];
        let is_there = match to {
            IpAddr::V4(to) => buffer[12..14] == [8, 0] && packet.get(16..20) == Some(&to.octets()),
            IpAddr::V6(to) => buffer[12..14] == [0x86, 0xdd] && packet.get(24..40) == Some(&to.octets()),
        };
        let protocol = packet.get(if to.is_ipv4() { 9 } else { 6 }).filter(|protocol| is_there && [6, 17].contains(*protocol));
        seen.extend(protocol);
    }
    seen
}

fn icmp6(from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    let pseudo = [&from.octets()[..], &to.octets(), &(message.len() as u32).to_be_bytes(), &[0, 0, 0, 58], &message].concat();
    let checksum = sum(&pseudo);
    message[2..4].copy_from_slice(&checksum);
    let head = [&[0x60, 0, 0, 0][..], &(message.len() as u16).to_be_bytes(), &[58, 255]].concat();
    [&head[..], &from.octets(), &to.octets(), &message].concat()
}

/// What arrives, until `last` does.
fn received(server: &UdpSocket, last: &str) -> Vec<String> {
    server.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut texts = Vec::new();
    let mut buffer = [0; 64];
    while texts.last().is_none_or(|text| text != last) {
        let (length, _) = server.recv_from(&mut buffer).unwrap();
        texts.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
    }
    texts
}

#[test]
fn a_pod_sends_with_its_own_addresses_only() {
    if !isolate() {
        return;
    }
    let node = Node::start();
    let (evil, victim) = (node.pod("evil"), node.pod("victim"));
    let host = UdpSocket::bind((GATEWAY, 7000)).unwrap();
    let honest = |text: &'static [u8]| evil.say((GATEWAY, 7000).into(), text);
    let to_host = |from: [u8; 6], packet: Vec<u8>| evil.send(frame(mac(GATEWAY), from, 0x0800, &packet));
    // What is honest arrives, made by hand or not.
    to_host(mac(evil.v4), datagram(evil.v4, GATEWAY, b"by hand"));
    honest(b"1");
    assert_eq!(received(&host, "1"), ["by hand", "1"]);
    let outside = Ipv4Addr::new(192, 0, 2, 9);
    for (from, address) in [
        (mac(evil.v4), victim.v4),
        (mac(victim.v4), victim.v4),
        (mac(victim.v4), evil.v4),
        (mac(evil.v4), outside),
        (mac(evil.v4), GATEWAY),
        (mac(evil.v4), Ipv4Addr::UNSPECIFIED),
    ] {
        to_host(from, datagram(address, GATEWAY, b"forged"));
        honest(b"2");
        assert_eq!(received(&host, "2"), ["2"], "{from:?} {address}");
    }
    // The victim is reached as before: nothing was learned.
    victim.say((GATEWAY, 7000).into(), b"3");
    assert_eq!(received(&host, "3"), ["3"]);
    let server = victim.netns.run({
        let address = victim.v4;
        move || UdpSocket::bind((address, 7000)).unwrap()
    });
    host.send_to(b"4", (victim.v4, 7000)).unwrap();
    assert_eq!(received(&server, "4"), ["4"]);
    // Past the node, from port to port, to the victim alone and to everybody: policies would not see it.
    for to in [mac(victim.v4), EVERYBODY] {
        evil.send(frame(to, mac(evil.v4), 0x0800, &datagram(evil.v4, victim.v4, b"past")));
        evil.say((victim.v4, 7000).into(), b"5");
        assert_eq!(received(&server, "5"), ["5"], "{to:?}");
    }
}

/// test/e2e/network/conntrack.go, "should drop INVALID conntrack entries" (kubernetes#74839); kube_proxy.go, "should set TCP CLOSE_WAIT timeout".
#[test]
fn what_is_no_part_of_a_connection_goes_no_further() {
    if !isolate() {
        return;
    }
    let node = Node::start();
    let (client, server, outside) = (node.pod("client"), node.pod("server"), neighbour());
    let listens = |netns: &Netns| {
        netns.run(|| socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), SockProtocol::EthAll).unwrap())
    };
    let (server_hears, outside_hears) = (listens(&server.netns), listens(&outside));
    let of_pod = |pod: &Pod| [IpAddr::from(pod.v4), IpAddr::from(pod.v6)];
    let out = ["192.0.2.2", "2001:db8::2"].map(|address| address.parse::<IpAddr>().unwrap());
    let by_bridge = (mac(GATEWAY), mac(client.v4));
    // Between pods, from a pod, and to one.
    for (netns, (gateway, own), from, to, heard) in [
        (&client.netns, by_bridge, of_pod(&client), of_pod(&server), &server_hears),
        (&client.netns, by_bridge, of_pod(&client), out, &outside_hears),
        (&outside, (UP, OUT), out, of_pod(&server), &server_hears),
    ] {
        for (from, to) in from.into_iter().zip(to) {
            let segment = |flags: u8| {
                let (kind, packet) = segment(from, to, flags);
                send_from(netns, frame(gateway, own, kind, &packet));
            };
            // An answer to nothing.
            segment(SYN | ACK);
            say_from(netns, SocketAddr::new(to, 7000), b"1");
            assert_eq!(protocols(heard, to), [17], "{from} {to}");
            segment(SYN);
            say_from(netns, SocketAddr::new(to, 7000), b"2");
            assert_eq!(protocols(heard, to), [6, 17], "{from} {to}");
        }
    }
    let timeout = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait").unwrap();
    assert_eq!(timeout.trim(), "3600");
}

#[test]
fn a_pod_says_nothing_of_others() {
    if !isolate() {
        return;
    }
    let node = Node::start();
    let (evil, victim) = (node.pod("evil"), node.pod("victim"));
    let host = UdpSocket::bind((GATEWAY, 7000)).unwrap();
    let all_nodes: Ipv6Addr = "ff02::1".parse().unwrap();
    let multicast = [0x33, 0x33, 0, 0, 0, 1];
    let routers = || {
        let own = sh("ip -6 route show default; ip -6 addr");
        let of_victim = victim.netns.run(|| sh("ip -6 route show default; ip -6 addr"));
        (own, of_victim)
    };
    let before = routers();
    // An address that no pod has yet: by a question, by an answer, and by an announcement.
    let place = Ipv4Addr::new(10, 42, 0, 99);
    for operation in [1u16, 2] {
        for asked in [GATEWAY, place] {
            let head = [&[0, 1, 8, 0, 6, 4][..], &operation.to_be_bytes()].concat();
            let body = [&mac(evil.v4)[..], &place.octets(), &[0; 6], &asked.octets()].concat();
            evil.send(frame(EVERYBODY, mac(evil.v4), 0x0806, &[head, body].concat()));
        }
    }
    let place6: Ipv6Addr = "fd42::99".parse().unwrap();
    let target: Ipv6Addr = "fd42::1".parse().unwrap();
    let link_layer = |kind: u8| [&[kind, 1][..], &mac(evil.v4)].concat();
    let solicitation = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &target.octets(), &link_layer(1)].concat();
    let advertisement = [&[136, 0, 0, 0, 0x60, 0, 0, 0][..], &place6.octets(), &link_layer(2)].concat();
    let local: Ipv6Addr = "fe80::666".parse().unwrap();
    let prefix: Ipv6Addr = "2001:db8:666::".parse().unwrap();
    let information = [&[3, 4, 64, 0xc0, 0, 0, 14, 16, 0, 0, 14, 16, 0, 0, 0, 0][..], &prefix.octets()].concat();
    let router = [&[134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0][..], &information, &link_layer(1)].concat();
    for (from, to, hardware, message) in [
        (place6, target, mac(GATEWAY), &solicitation),
        (evil.v6, target, mac(GATEWAY), &advertisement),
        (local, all_nodes, multicast, &router),
        (local, all_nodes, EVERYBODY, &router),
        (evil.v6, all_nodes, multicast, &router),
        (local, target, mac(GATEWAY), &router),
    ] {
        evil.send(frame(hardware, mac(evil.v4), 0x86dd, &icmp6(from, to, message)));
    }
    evil.say((GATEWAY, 7000).into(), b"all sent");
    received(&host, "all sent");
    let neighbours = sh("ip neigh; ip -6 neigh");
    assert!(!neighbours.contains(&place.to_string()) && !neighbours.contains("fd42::99"), "{neighbours}");
    assert_eq!(routers(), before);
    assert!(!before.0.contains("via") && !before.0.contains("2001:db8"), "{}", before.0);
}

#[test]
fn neighbours_do_not_reach_what_the_node_serves_for_the_cluster() {
    if !isolate() {
        return;
    }
    let node = Node::start();
    let pod = node.pod("pod");
    let outside = neighbour();
    let dns: SocketAddr = "10.43.0.10:53".parse().unwrap();
    for address in [dns, "192.0.2.1:53".parse().unwrap()] {
        let server = UdpSocket::bind(address).unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, peer)) = server.recv_from(&mut buffer) {
                server.send_to(b"answer", peer).unwrap();
            }
        });
    }
    let ask = move |address| move || udp(&UdpSocket::bind("0.0.0.0:0").unwrap(), address).is_ok();
    assert!(pod.netns.run(ask(dns)) && ask(dns)(), "pods and the node");
    // The way to the outside is new: the first question may come before it is there.
    let own: SocketAddr = "192.0.2.1:53".parse().unwrap();
    assert!((0..20).any(|_| outside.run(ask(own))), "what the node serves at its own address is its own matter");
    assert!(!outside.run(ask(dns)), "a neighbour");
}

/// What arrives at the port of the overlay would be taken for packets of pods of other nodes.
#[test]
fn no_pod_speaks_for_another_node() {
    if !isolate() {
        return;
    }
    let node = Node::start();
    let evil = node.pod("evil");
    for gateway in [IpAddr::from(GATEWAY), "fd42::1".parse().unwrap()] {
        let (overlay, host) = (UdpSocket::bind((gateway, 8472)).unwrap(), UdpSocket::bind((gateway, 7000)).unwrap());
        evil.say(SocketAddr::new(gateway, 8472), b"forged");
        evil.say(SocketAddr::new(gateway, 7000), b"last");
        assert_eq!(received(&host, "last"), ["last"]);
        overlay.set_nonblocking(true).unwrap();
        assert_eq!(overlay.recv(&mut [0; 64]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    }
}

/// CVE-2020-8558: with `route_localnet`, which is there for node ports at 127.0.0.1, neighbours would reach what listens at loopback addresses, and speak for it.
#[test]
fn loopback_addresses_are_for_the_host_alone() {
    if !isolate() {
        return;
    }
    let node = Node::start();
    let (pod, outside) = (node.pod("pod"), neighbour());
    sh("for name in up0 all; do echo 0 > /proc/sys/net/ipv4/conf/$name/rp_filter; done");
    sh("echo 1 > /proc/sys/net/ipv4/conf/up0/route_localnet");
    let (own, other) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
    let server = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 7000)).unwrap();
    // The second one is no address of the interface, which the kernel looks for.
    let (loopback, second) = (Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2));
    for (netns, gateway, mac, honest, to) in
        [(&pod.netns, mac(GATEWAY), mac(pod.v4), pod.v4, GATEWAY), (&outside, UP, OUT, other, own)]
    {
        let send =
            |from: Ipv4Addr, to: Ipv4Addr, text: &[u8]| send_from(netns, frame(gateway, mac, 0x0800, &datagram(from, to, text)));
        for (from, to) in [(honest, loopback), (honest, second), (loopback, to), (second, to)] {
            send(from, to, b"forged");
        }
        send(honest, to, b"honest");
        assert_eq!(received(&server, "honest"), ["honest"], "{honest}");
    }
}
