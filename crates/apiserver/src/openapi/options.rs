//! Query parameters from the types of options, as upstream derives them: one for each field that is a plain value.

use schema::openapi::Docs;
use schema::{Schema, Type};

use super::operation::{Parameter, Place};

const PRETTY: &str = "If 'true', then the output is pretty printed. Defaults to 'false' unless the user-agent indicates a browser or command-line HTTP tool (curl and wget).";

/// `pretty`, which all operations on objects take.
pub(super) fn pretty() -> Parameter {
    Parameter { place: Place::Query, name: "pretty".into(), ty: "string", description: PRETTY.into() }
}

/// The parameters of a kind of options, but for some.
pub(super) fn parameters(docs: &Docs, kind: (&str, &str, &str), without: &[&str]) -> Vec<Parameter> {
    let schema = Schema::builtin();
    let Some(id) = schema.kind(kind.0, kind.1, kind.2) else { return Vec::new() };
    let ty = schema.get(id);
    let fields = ty.fields.iter().filter(|field| !["kind", "apiVersion"].contains(&field.name) && !without.contains(&field.name));
    let parameter = |field: &schema::Field| {
        let description = docs.field_description(ty.name, field.name).replace('\n', " ");
        Some(Parameter { place: Place::Query, name: field.name.into(), ty: json_type(&field.ty)?, description })
    };
    fields.filter_map(parameter).collect()
}

/// The type of a parameter. A list is given by repeating the parameter.
fn json_type(ty: &Type) -> Option<&'static str> {
    match ty {
        Type::Bool => Some("boolean"),
        Type::Int32 | Type::Int64 => Some("integer"),
        Type::Float64 => Some("number"),
        Type::String => Some("string"),
        Type::List(inner) => json_type(inner),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_fields_are_parameters() {
        let docs = Docs::builtin();
        let names = |kind: &str, without: &[&str]| -> String {
            let all = parameters(&docs, ("", "v1", kind), without);
            assert!(all.iter().all(|parameter| !parameter.description.is_empty()), "{kind}");
            all.iter().map(|parameter| format!("{}:{}", parameter.name, &parameter.ty[..1])).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names("PodExecOptions", &[]), "stdin:b stdout:b stderr:b tty:b container:s command:s");
        assert_eq!(names("PodPortForwardOptions", &[]), "ports:i");
        assert_eq!(names("CreateOptions", &["fieldManager"]), "dryRun:s fieldValidation:s");
        // Not `sinceTime`, which is no plain value.
        assert!(!names("PodLogOptions", &[]).contains("Time"));
    }
}
