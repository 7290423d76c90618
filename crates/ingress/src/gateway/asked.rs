//! Parameters and addresses that classes and Gateways ask for: what is not to be had here is refused, so that nobody takes it for done. Pure.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::Around;
use super::status::{condition, generation};
use super::types::{Gateway, GatewayClass};

/// The reason of a condition, and what it means.
type Why = (&'static str, String);

/// Whether a class is one of ours to serve.
///
/// # Errors
/// Its parameters, since there are none of any kind.
pub(super) fn class(class: &GatewayClass) -> Result<(), Why> {
    match class.spec.parameters_ref.is_null() {
        true => Ok(()),
        false => Err(("InvalidParameters", "there are no parameters of classes: parametersRef has to go".to_owned())),
    }
}

/// Whether a Gateway can be served as it is asked for.
///
/// # Errors
/// Parameters, and types of addresses other than IPAddress.
pub(super) fn gateway(gateway: &Gateway) -> Result<(), Why> {
    if !gateway.spec.infrastructure.parameters_ref.is_null() {
        let message = "there are no parameters of Gateways: infrastructure.parametersRef has to go";
        return Err(("InvalidParameters", message.to_owned()));
    }
    let other = gateway.spec.addresses.iter().filter_map(|address| address.kind.as_deref()).find(|kind| *kind != "IPAddress");
    other.map_or(Ok(()), |kind| Err(("UnsupportedAddress", format!("there are no addresses of the type {kind}"))))
}

/// The status of a Gateway that is not served at all.
pub(super) fn refused(gateway: &Gateway, (reason, message): &Why) -> Value {
    let seen = generation(&gateway.metadata);
    let accepted = condition("Accepted", Err(()), reason, message, seen);
    let programmed = condition("Programmed", Err(()), "Invalid", "the Gateway is not accepted", seen);
    json!({"addresses": [], "conditions": [accepted, programmed], "listeners": []})
}

/// The addresses that a Gateway has: those that it names, and all of ours where it names none.
///
/// # Errors
/// The address that it names and that does not lead here.
pub(super) fn addresses(gateway: &Gateway, around: &Around<'_>) -> Result<Vec<IpAddr>, String> {
    let mut named = Vec::new();
    for value in gateway.spec.addresses.iter().filter_map(|address| address.value.as_deref()) {
        match value.parse::<IpAddr>().ok().filter(|address| (around.leads_here)(*address)) {
            Some(address) => named.push(address),
            None => return Err(format!("{value} is no address of a node where ingress is reached")),
        }
    }
    Ok(if named.is_empty() { around.addresses.to_vec() } else { named })
}
