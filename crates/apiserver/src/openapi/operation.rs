//! What a document says of one operation, whatever its version: how it is written in OpenAPI 2.0 and 3.0.

use serde_json::{Map, Value, json};

/// Which specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Swagger 2.0.
    V2,
    /// OpenAPI 3.0.
    V3,
}

impl Dialect {
    pub(super) fn reference(self, name: &str) -> Value {
        let base = if self == Self::V2 { "#/definitions/" } else { "#/components/schemas/" };
        json!({"$ref": format!("{base}{name}")})
    }
}

/// Where a parameter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Path,
    Query,
}

/// A parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parameter {
    pub(super) place: Place,
    pub(super) name: String,
    /// Its type in JSON.
    pub(super) ty: &'static str,
    pub(super) description: String,
}

impl Parameter {
    pub(super) fn path(name: &str, description: impl Into<String>) -> Self {
        Self { place: Place::Path, name: name.into(), ty: "string", description: description.into() }
    }

    fn render(&self, dialect: Dialect) -> Value {
        let place = if self.place == Place::Path { "path" } else { "query" };
        let mut out = json!({"name": self.name, "in": place});
        if !self.description.is_empty() {
            out["description"] = self.description.as_str().into();
        }
        if self.place == Place::Path {
            out["required"] = true.into();
        }
        match dialect {
            Dialect::V2 => {
                out["type"] = self.ty.into();
                out["uniqueItems"] = true.into();
            }
            Dialect::V3 => out["schema"] = json!({"type": self.ty, "uniqueItems": true}),
        }
        out
    }
}

/// The body that an operation reads.
#[derive(Clone, Debug)]
pub(super) struct Reads {
    /// Name of its schema.
    pub(super) schema: String,
    pub(super) required: bool,
}

/// What an operation answers with.
#[derive(Clone, Debug)]
pub(super) enum Writes {
    /// An object: name of its schema.
    Object(String),
    /// Anything, as text.
    Text,
}

/// One operation.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) id: String,
    pub(super) tag: String,
    pub(super) description: String,
    pub(super) parameters: Vec<Parameter>,
    pub(super) consumes: &'static [&'static str],
    pub(super) produces: Vec<&'static str>,
    pub(super) reads: Option<Reads>,
    pub(super) writes: Writes,
    /// The codes of answers with what it writes.
    pub(super) codes: &'static [u16],
    /// `x-kubernetes-action` and `x-kubernetes-group-version-kind`, of operations on objects.
    pub(super) action: Option<(&'static str, (String, String, String))>,
    /// It is on custom resources.
    pub(super) is_custom: bool,
}

/// An item of `paths`: parameters that all of its operations share are written once.
pub(super) fn item(operations: &[Operation], dialect: Dialect) -> Value {
    let is_common = |parameter: &Parameter| operations.iter().all(|one| one.parameters.contains(parameter));
    let mut out = Map::new();
    for one in operations {
        out.insert(one.method.into(), one.render(dialect, is_common));
    }
    let common = operations.first().into_iter().flat_map(|one| &one.parameters).filter(|parameter| is_common(parameter));
    let common = render_all(common, dialect);
    if !common.is_empty() {
        out.insert("parameters".into(), common.into());
    }
    out.into()
}

fn render_all<'a>(parameters: impl Iterator<Item = &'a Parameter>, dialect: Dialect) -> Vec<Value> {
    let mut sorted: Vec<&Parameter> = parameters.collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    sorted.into_iter().map(|parameter| parameter.render(dialect)).collect()
}

impl Operation {
    fn render(&self, dialect: Dialect, is_common: impl Fn(&Parameter) -> bool) -> Value {
        let mut out = json!({"operationId": self.id, "tags": [self.tag], "description": self.description});
        if let Some((action, (group, version, kind))) = &self.action {
            out["x-kubernetes-action"] = (*action).into();
            out["x-kubernetes-group-version-kind"] = json!({"group": group, "version": version, "kind": kind});
        }
        let mut parameters = render_all(self.parameters.iter().filter(|parameter| !is_common(parameter)), dialect);
        match dialect {
            Dialect::V2 => {
                out["consumes"] = json!(self.consumes);
                out["produces"] = json!(self.produces);
                out["schemes"] = json!(["https"]);
                if let Some(reads) = &self.reads {
                    // `body` comes before all other names of parameters but these two, as upstream sorts it in.
                    let mut body = json!({"name": "body", "in": "body", "schema": dialect.reference(&reads.schema)});
                    if reads.required {
                        body["required"] = true.into();
                    }
                    parameters.insert(0, body);
                }
            }
            Dialect::V3 => {
                if let Some(reads) = &self.reads {
                    let schema = json!({"schema": dialect.reference(&reads.schema)});
                    let content: Map<String, Value> =
                        self.consumes.iter().map(|media| ((*media).to_owned(), schema.clone())).collect();
                    out["requestBody"] = json!({"content": content});
                    if reads.required {
                        out["requestBody"]["required"] = true.into();
                    }
                }
            }
        }
        if !parameters.is_empty() {
            out["parameters"] = parameters.into();
        }
        out["responses"] = self.responses(dialect);
        out
    }

    fn responses(&self, dialect: Dialect) -> Value {
        let schema = match &self.writes {
            Writes::Object(name) => dialect.reference(name),
            Writes::Text => json!({"type": "string"}),
        };
        let mut out = json!({"401": {"description": "Unauthorized"}});
        for code in self.codes {
            let description = match code {
                201 => "Created",
                202 => "Accepted",
                _ => "OK",
            };
            let answer = &mut out[code.to_string()];
            *answer = json!({"description": description});
            match dialect {
                Dialect::V2 => answer["schema"] = schema.clone(),
                Dialect::V3 => {
                    let content: Map<String, Value> =
                        self.produces.iter().map(|media| ((*media).to_owned(), json!({"schema": schema}))).collect();
                    answer["content"] = content.into();
                }
            }
        }
        out
    }
}

/// A name as a part of an operation's id: what is no letter or digit goes, and what follows it is a capital.
pub(super) fn camel(text: &str, mut capital: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_alphanumeric() {
            out.push(if capital { c.to_ascii_uppercase() } else { c });
            capital = false;
        } else {
            capital = true;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(method: &'static str, names: &[&str]) -> Operation {
        let query =
            |name: &&str| Parameter { place: Place::Query, name: (*name).into(), ty: "string", description: String::new() };
        Operation {
            method,
            id: "x".into(),
            tag: "t".into(),
            description: "d".into(),
            parameters: names.iter().map(query).collect(),
            consumes: &["*/*"],
            produces: vec!["application/json"],
            reads: (method == "put").then(|| Reads { schema: "S".into(), required: true }),
            writes: Writes::Object("T".into()),
            codes: &[200, 201],
            action: None,
            is_custom: false,
        }
    }

    #[test]
    fn shared_parameters_are_written_once() {
        for dialect in [Dialect::V2, Dialect::V3] {
            let item = item(&[operation("get", &["c", "a", "b"]), operation("put", &["a", "c"])], dialect);
            let names = |pointer: &str| -> Vec<String> {
                let list = item.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
                list.map(|parameter| parameter["name"].as_str().unwrap_or_default().to_owned()).collect()
            };
            assert_eq!((names("/parameters"), names("/get/parameters")), (vec!["a".into(), "c".into()], vec!["b".into()]));
            assert_eq!(names("/put/parameters"), if dialect == Dialect::V2 { vec!["body"] } else { vec![] });
        }
    }

    #[test]
    fn both_specifications_say_the_same() {
        let put = [operation("put", &[])];
        let (v2, v3) = (item(&put, Dialect::V2), item(&put, Dialect::V3));
        let body = json!({"name": "body", "in": "body", "required": true, "schema": {"$ref": "#/definitions/S"}});
        assert_eq!(v2["put"]["parameters"], json!([body]));
        let body = json!({"content": {"*/*": {"schema": {"$ref": "#/components/schemas/S"}}}, "required": true});
        assert_eq!(v3["put"]["requestBody"], body);
        assert_eq!(v2["put"]["responses"]["201"], json!({"description": "Created", "schema": {"$ref": "#/definitions/T"}}));
        let content = json!({"application/json": {"schema": {"$ref": "#/components/schemas/T"}}});
        assert_eq!(v3["put"]["responses"]["201"], json!({"description": "Created", "content": content}));
        assert_eq!(v3["put"]["responses"]["401"], json!({"description": "Unauthorized"}));
    }

    #[test]
    fn parts_of_ids() {
        let check = |text: &str, capital, expected: &str| assert_eq!(camel(text, capital), expected);
        check("rbac.authorization", true, "RbacAuthorization");
        check("rbac.authorization", false, "rbacAuthorization");
        check("core", true, "Core");
        check(".well-known", false, "WellKnown");
        check("v1beta1", true, "V1beta1");
    }
}
