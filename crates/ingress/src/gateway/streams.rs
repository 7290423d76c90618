//! Ports of listeners: those for TCP and UDP have one for themselves, and all that comes to it goes to one route; those for HTTP, HTTPS and TLS share
//! it with others that are for the same. Pure.

use std::fmt;

use super::Door;

/// Ports that are served at once: each is a socket, or several.
pub const MOST: usize = 1024;
/// Most of them that the listeners of one namespace have.
pub const OF_NAMESPACE: usize = MOST / 4;

/// How what comes to a port is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    Tcp,
    Udp,
}

/// A port of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port {
    pub transport: Transport,
    pub number: u16,
}

impl Transport {
    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }
}

impl Port {
    /// A port of TCP.
    pub fn tcp(number: u16) -> Self {
        Self { transport: Transport::Tcp, number }
    }

    /// A port of UDP.
    pub fn udp(number: u16) -> Self {
        Self { transport: Transport::Udp, number }
    }

    /// A port of one of both, by the name of the protocol in the API.
    pub fn named(protocol: &str, number: u16) -> Option<Self> {
        match protocol {
            "TCP" => Some(Self::tcp(number)),
            "UDP" => Some(Self::udp(number)),
            _ => None,
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.transport.name())
    }
}

/// What a port is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Carries {
    /// Plain HTTP.
    Http,
    /// TLS, which ends here or is passed through.
    Tls,
    /// Anything, to one route.
    Stream,
}

impl Carries {
    /// What a port is for at which connections come by this door.
    pub fn of(door: Door) -> Self {
        if door == Door::Http { Self::Http } else { Self::Tls }
    }
}

impl fmt::Display for Carries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "HTTP",
            Self::Tls => "HTTPS and TLS",
            Self::Stream => "a listener of its own",
        })
    }
}
