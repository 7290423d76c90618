//! Every kind of `k8s.io/api` is served, or there is a reason why not.

use schema::{Schema, Type};

use crate::{Behaviour, KINDS};

/// Kinds that are not served, and why. Nothing may stand here that could be served.
const REFUSED: &[(&str, &str)] = &[
    ("/v1/PodStatusResult", "upstream serves it nowhere"),
    ("/v1/RangeAllocation", "upstream keeps it in its store and serves it nowhere"),
    ("apidiscovery.k8s.io/v2/APIGroupDiscovery", "a document of discovery"),
    ("meta.k8s.io/v1/PartialObjectMetadata", "a form of every object"),
];

/// What has the metadata of an object is a kind with objects, and not an option, a list or a review of a webhook.
fn has_metadata(schema: &Schema, id: schema::TypeId) -> bool {
    let field = schema.get(id).field("metadata");
    field.is_some_and(|field| match &field.ty {
        Type::Struct(id) => schema.get(*id).name.ends_with(".meta.v1.ObjectMeta"),
        _ => false,
    })
}

fn served() -> Vec<String> {
    let own = KINDS.iter().map(|strategy| strategy.def().own_kind());
    let bodies = KINDS.iter().flat_map(|strategy| strategy.def().subresources.iter());
    let bodies = bodies.filter(|sub| matches!(sub.behaviour, Behaviour::Scale | Behaviour::Action(_)));
    let all = own.chain(bodies.filter_map(|sub| sub.kind));
    all.map(|(group, version, kind)| format!("{group}/{version}/{kind}")).collect()
}

#[test]
fn every_kind_is_served_or_refused_with_a_reason() {
    let (schema, served) = (Schema::builtin(), served());
    let defined = schema.kinds().filter(|(_, _, _, id)| has_metadata(schema, *id));
    let mut missing: Vec<String> = defined
        .map(|(group, version, kind, _)| format!("{group}/{version}/{kind}"))
        .filter(|kind| !served.contains(kind) && !REFUSED.iter().any(|(refused, _)| refused == kind))
        .collect();
    missing.sort();
    assert_eq!(missing, Vec::<String>::new(), "kinds that are neither served nor refused");
    let own =
        |kind: &str| KINDS.iter().any(|strategy| kind == format!("{}/{}", strategy.def().api_version(), strategy.def().kind));
    let stale = REFUSED.iter().find(|(kind, _)| own(kind.trim_start_matches('/')));
    assert_eq!(stale, None, "a kind that is said to be refused is served");
}
