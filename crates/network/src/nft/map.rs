//! Names of what elements are put into.

/// The maps and sets of the table that elements are put into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Map {
    /// Key to code, for every client.
    Services,
    /// Key to code, before `Services`, for clients outside the cluster only (external traffic policy Local).
    External,
    /// Key and slot to endpoint.
    Slots,
    /// Keys and endpoints to which affinity may stick.
    Affine,
    /// Pairs of equal addresses: local endpoints that may connect to themselves through a service.
    Hairpin,
    /// Key to endpoint.
    HostPorts,
    /// Keys and ranges of clients that may use them, where not everybody may.
    Sources,
}

impl Map {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Services, Self::External, Self::Slots, Self::Affine, Self::Hairpin, Self::HostPorts, Self::Sources];

    /// The name in the kernel.
    pub fn name(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::External => "external",
            Self::Slots => "slots",
            Self::Affine => "affine",
            Self::Hairpin => "hairpin",
            Self::HostPorts => "host-ports",
            Self::Sources => "sources",
        }
    }

    pub(super) fn holds_codes(self) -> bool {
        matches!(self, Self::Services | Self::External)
    }
}
