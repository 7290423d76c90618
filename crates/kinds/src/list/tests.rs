use std::collections::BTreeSet;

use schema::{Alternative, Schema, Type, TypeId};
use serde_json::{Map, Value, json};

use super::KINDS;
use crate::def::{Dependents, KindDef};
use crate::strategy::Strategy;

/// Resources of which a fact holds, as upstream's tests name them.
fn resources(holds: impl Fn(&KindDef) -> bool) -> BTreeSet<String> {
    let stored = KINDS.iter().map(|strategy| strategy.def()).filter(|def| def.stored && holds(def));
    stored.map(|def| format!("{}.{}", def.plural, def.group).trim_end_matches('.').to_owned()).collect()
}

fn check(holds: impl Fn(&KindDef) -> bool, expected: &[&str]) {
    assert_eq!(resources(holds), expected.iter().map(|&name| name.to_owned()).collect());
}

/// Upstream's lists of what is not as new kinds should be (test/integration/apiserver/apidefinitions/default_behaviors_test.go): these are made by
/// PUT, the second ones are only updated by who names a version, the third ones keep their dependents, and of the last none ever waits for its own.
#[test]
fn what_updates_and_deletions_do() {
    check(
        |def| def.create_on_update,
        &[
            "clusterrolebindings.rbac.authorization.k8s.io",
            "clusterroles.rbac.authorization.k8s.io",
            "endpoints",
            "events",
            "events.events.k8s.io",
            "leases.coordination.k8s.io",
            "limitranges",
            "rolebindings.rbac.authorization.k8s.io",
            "roles.rbac.authorization.k8s.io",
            "runtimeclasses.node.k8s.io",
            "services",
        ],
    );
    check(
        |def| def.versioned,
        &[
            "apiservices.apiregistration.k8s.io",
            "clustertrustbundles.certificates.k8s.io",
            "csidrivers.storage.k8s.io",
            "csinodes.storage.k8s.io",
            "csistoragecapacities.storage.k8s.io",
            "customresourcedefinitions.apiextensions.k8s.io",
            "leases.coordination.k8s.io",
            "mutatingadmissionpolicies.admissionregistration.k8s.io",
            "mutatingadmissionpolicybindings.admissionregistration.k8s.io",
            "mutatingwebhookconfigurations.admissionregistration.k8s.io",
            "podcertificaterequests.certificates.k8s.io",
            "poddisruptionbudgets.policy",
            "runtimeclasses.node.k8s.io",
            "validatingadmissionpolicies.admissionregistration.k8s.io",
            "validatingadmissionpolicybindings.admissionregistration.k8s.io",
            "validatingwebhookconfigurations.admissionregistration.k8s.io",
            "volumeattachments.storage.k8s.io",
        ],
    );
    check(|def| def.dependents == Dependents::Stay, &["jobs.batch", "replicationcontrollers"]);
    check(|def| def.dependents == Dependents::None, &["events", "events.events.k8s.io"]);
}

/// What values an object is filled with.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fill {
    /// Every struct, list and map is there, and nothing in it.
    Nothing,
    /// Go's zero values.
    Zero,
    /// What is at the end of a range, or written in an unusual way.
    Odd,
}

/// How often a type may be a part of itself.
const MAX_DEPTH: usize = 2;

fn structure(id: TypeId, fill: Fill, around: &mut Vec<TypeId>) -> Value {
    if around.iter().filter(|&&known| known == id).count() == MAX_DEPTH {
        return json!({});
    }
    around.push(id);
    let fields = Schema::builtin().get(id).fields.iter();
    let fields: Map<String, Value> = fields.map(|field| (field.name.to_owned(), value(&field.ty, fill, around))).collect();
    around.pop();
    Value::Object(fields)
}

fn value(ty: &Type, fill: Fill, around: &mut Vec<TypeId>) -> Value {
    let scalar = |zero: Value, odd: Value| match fill {
        Fill::Nothing => Value::Null,
        Fill::Zero => zero,
        Fill::Odd => odd,
    };
    match ty {
        Type::Bool => scalar(json!(false), json!(true)),
        Type::Int32 => scalar(json!(0), json!(i32::MIN)),
        Type::Int64 => scalar(json!(0), json!(i64::MAX)),
        Type::Float64 => scalar(json!(0), json!(1e300)),
        Type::String => scalar(json!(""), json!("\u{e9}\u{1f600}")),
        Type::Bytes => scalar(json!(""), json!("AA\nEC")),
        Type::Quantity => scalar(json!("0"), json!("9223372036854775807E")),
        Type::IntOrString => scalar(json!(0), json!(i32::MAX)),
        Type::Time => scalar(json!("0001-01-01T00:00:00Z"), json!("9999-12-28T23:59:59.999999999+14:00")),
        Type::MicroTime => scalar(json!("0001-01-01T00:00:00Z"), json!("1969-12-31T23:59:59.9999999-12:00")),
        Type::Duration => scalar(json!("0s"), json!("-1h2m3.5s")),
        Type::RawExtension | Type::FieldsV1 => scalar(json!({}), json!({"a": [1, null]})),
        Type::Any | Type::Json => scalar(json!(null), json!([1.5, null, {}])),
        Type::SchemaOr(Alternative::Bool, _) if fill == Fill::Zero => json!(false),
        Type::SchemaOr(Alternative::Strings, _) if fill == Fill::Zero => json!(["a"]),
        Type::SchemaOr(Alternative::List, id) if fill == Fill::Zero => json!([structure(*id, fill, around)]),
        Type::SchemaOr(_, id) | Type::Struct(id) => structure(*id, fill, around),
        Type::List(element) => json!([value(element, fill, around)]),
        Type::Map(element) => json!({"k": value(element, fill, around)}),
    }
}

/// An object of a kind, as it is when rules see it.
fn filled(strategy: &dyn Strategy, fill: Fill) -> Value {
    let (schema, def) = (Schema::builtin(), strategy.def());
    let id = schema.kind(&def.group, &def.version, &def.kind).expect("its schema is known");
    let mut object = structure(id, fill, &mut Vec::new());
    apimachinery::meta::set_type(&mut object, &def.api_version(), &def.kind);
    let unknown = schema::decode(schema, id, &mut object);
    assert_eq!(unknown, Ok(Vec::new()), "{} {fill:?}", def.kind);
    strategy.apply_defaults(&mut object);
    object
}

/// Whatever the schema lets pass, the decoder of the kind reads: what it could not would be an internal error of every write. That no rule and no
/// column fails over it is found out besides.
#[test]
fn decoders_read_what_the_schema_lets_pass() {
    let mut found = BTreeSet::new();
    for strategy in KINDS {
        for fill in [Fill::Nothing, Fill::Zero, Fill::Odd] {
            let (object, mut warnings) = (filled(*strategy, fill), Vec::new());
            let subs =
                strategy.def().subresources.iter().map(|sub| strategy.validate_sub(sub.name, &object, &object, &mut Vec::new()));
            let all: Vec<_> = subs.collect();
            let whole = [strategy.validate(&object, &mut warnings), strategy.validate_update(&object, &object, &mut warnings)];
            // A decoder's errors are of no field.
            let internal = all.iter().chain(&whole).flat_map(|errors| errors.iter().map(ToString::to_string));
            let internal = internal.filter(|text| text.starts_with("<nil>: Internal error"));
            found.extend(internal.map(|text| format!("{} {fill:?}: {text}", strategy.def().kind)));
            strategy.row(&object, jiff::Timestamp::UNIX_EPOCH);
        }
    }
    assert_eq!(found, BTreeSet::new());
}
