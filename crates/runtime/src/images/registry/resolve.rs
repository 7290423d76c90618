//! Addresses of registries by name.

use std::net::SocketAddr;
use std::sync::Arc;

use base::lookup::Lookups;
use reqwest::dns::{Name, Resolve, Resolving};

static LOOKUPS: Lookups = Lookups::new(64);

use super::reach::{Reach, Refused};

/// The system's resolver, as far as the registry may lead there.
pub(super) struct Resolver(pub(super) Arc<Reach>);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (name, reach) = (name.as_str().to_owned(), self.0.clone());
        Box::pin(async move {
            // The client fills in the port.
            let addresses = LOOKUPS.addresses(&name, 0).await?;
            let found: Vec<SocketAddr> = addresses.into_iter().filter(|address| reach.has(&name, address.ip())).collect();
            if found.is_empty() {
                return Err(Box::new(Refused::Inside(name)) as Box<dyn std::error::Error + Send + Sync>);
            }
            Ok(Box::new(found.into_iter()) as Box<dyn Iterator<Item = SocketAddr> + Send>)
        })
    }
}
