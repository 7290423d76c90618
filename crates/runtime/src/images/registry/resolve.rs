//! Addresses of registries by name.

use std::net::SocketAddr;

use base::lookup::Lookups;
use reqwest::dns::{Name, Resolve, Resolving};

static LOOKUPS: Lookups = Lookups::new(64);

/// The system's resolver.
pub(super) struct Resolver;

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let name = name.as_str().to_owned();
        Box::pin(async move {
            // The client fills in the port.
            let addresses = LOOKUPS.addresses(&name, 0).await?;
            Ok(Box::new(addresses.into_iter()) as Box<dyn Iterator<Item = SocketAddr> + Send>)
        })
    }
}
