//! The operations of a resource. Ids, descriptions and parameters are upstream's (`k8s.io/apiserver/pkg/endpoints/installer.go`),
//! for clients are generated from them.

use kinds::{Behaviour, Connect, GroupVersionKindRef, KindDef, Sub, Verb};
use schema::Schema;
use schema::openapi::Docs;

use super::operation::{Operation, Parameter, Reads, Writes, camel};
use super::options::{parameters, pretty};
use super::{custom, prefix};

const ANY: &[&str] = &["*/*"];
const MEDIA: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const STREAMS: [&str; 2] = ["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];
const CUSTOM_MEDIA: &[&str] = &["application/json", "application/yaml"];
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const NAMESPACE: &str = "object name and auth scope, such as for teams and projects";
const DEPRECATED: &str = ". deprecated: use the 'watch' parameter with a list operation instead";

/// Methods that a connection is made by.
const UPGRADES: &[&str] = &["get", "post"];
const PROXIED: &[&str] = &["get", "post", "put", "delete", "options", "head", "patch"];

/// Paths and their operations.
pub(super) type Paths = Vec<(String, Vec<Operation>)>;

/// What a path is about.
#[derive(Clone, Copy)]
struct On<'a> {
    docs: &'a Docs,
    def: &'a KindDef,
    sub: Option<&'a Sub>,
    /// All namespaces.
    everywhere: bool,
    /// What follows a proxy's own path.
    with_path: bool,
}

/// All operations of a kind.
pub(super) fn operations(def: &KindDef, docs: &Docs) -> Paths {
    let base = format!("/{}", prefix(&def.group, &def.version));
    let scope = if def.namespaced { "namespaces/{namespace}/" } else { "" };
    let own = format!("{scope}{}", def.plural);
    let on = On { docs, def, sub: None, everywhere: false, with_path: false };
    let mut out = Paths::new();
    let mut add = |path: String, operations: Vec<Operation>| {
        if !operations.is_empty() {
            out.push((format!("{base}/{path}"), operations));
        }
    };
    add(own.clone(), on.verbs(&[Verb::List, Verb::Create, Verb::DeleteCollection]));
    add(format!("{own}/{{name}}"), on.verbs(&[Verb::Get, Verb::Update, Verb::Patch, Verb::Delete]));
    // The older paths of watches are not told of custom resources, as upstream.
    let watches = def.verbs.contains(Verb::Watch) && !def.is_custom();
    if watches {
        add(format!("watch/{own}"), vec![on.watch(false)]);
        add(format!("watch/{own}/{{name}}"), vec![on.watch(true)]);
    }
    if def.namespaced && def.verbs.contains(Verb::List) {
        let everywhere = On { everywhere: true, ..on };
        add(def.plural.to_string(), vec![everywhere.verb(Verb::List)]);
        if watches {
            add(format!("watch/{}", def.plural), vec![everywhere.watch(false)]);
        }
    }
    for sub in def.subresources.iter() {
        let on = On { sub: Some(sub), ..on };
        let path = format!("{own}/{{name}}/{}", sub.name);
        match sub.behaviour {
            Behaviour::Connect(Connect::Proxy) => {
                add(format!("{path}/{{path}}"), On { with_path: true, ..on }.connects(PROXIED));
                add(path, on.connects(PROXIED));
            }
            Behaviour::Connect(Connect::Log) => add(path, vec![on.log()]),
            Behaviour::Connect(_) => add(path, on.connects(UPGRADES)),
            _ => add(path, on.verbs(&[Verb::Get, Verb::Create, Verb::Update, Verb::Patch])),
        }
    }
    out
}

impl On<'_> {
    /// The kind of the body.
    fn kind(&self) -> GroupVersionKindRef<'_> {
        self.def.body_kind(self.sub)
    }

    fn verbs(&self, wanted: &[Verb]) -> Vec<Operation> {
        let served = self.sub.map_or(self.def.verbs, |sub| sub.verbs);
        wanted.iter().filter(|verb| served.contains(**verb)).map(|verb| self.verb(*verb)).collect()
    }

    /// The name of a kind's type.
    fn type_name(&self, kind: (&str, &str, &str)) -> Option<String> {
        if self.def.is_custom() && self.sub.is_none_or(|sub| sub.kind.is_none()) {
            return Some(custom::type_name(kind));
        }
        let schema = Schema::builtin();
        schema.kind(kind.0, kind.1, kind.2).map(|id| schema.get(id).name.to_owned())
    }

    /// `verb of the ...`, or `verb of SUB of the ...`.
    fn doc(&self, verb: &str, the: &str) -> String {
        match self.sub {
            None => format!("{verb} {the}{}", self.def.kind),
            Some(sub) => format!("{verb} {} of {the}{}", sub.name, self.def.kind),
        }
    }

    /// `a`, `an`, or nothing before what is a plural.
    fn article(&self) -> &'static str {
        let kind = &self.def.kind;
        match kind.chars().next() {
            _ if kind.ends_with('s') && !kind.ends_with("ss") => "",
            Some('A' | 'E' | 'I' | 'O' | 'U') => "an ",
            _ => "a ",
        }
    }

    /// The parameters of the path.
    fn path_parameters(&self, named: bool) -> Vec<Parameter> {
        let mut out = Vec::new();
        if self.def.namespaced && !self.everywhere {
            out.push(Parameter::path("namespace", NAMESPACE));
        }
        if named || self.sub.is_some() {
            out.push(Parameter::path("name", format!("name of the {}", self.kind().2)));
        }
        if self.with_path {
            out.push(Parameter::path("path", "path to the resource"));
        }
        out
    }

    fn options(&self, kind: &str, without: &[&str]) -> Vec<Parameter> {
        parameters(self.docs, ("meta.k8s.io", "v1", kind), without)
    }

    /// An operation with what all have in common. `verb` and `noun` go around the group and version in its id.
    fn operation(&self, method: &'static str, action: &'static str, verb: &str, noun: &str) -> Operation {
        let def = self.def;
        let group = if def.group.is_empty() { "core" } else { def.group.trim_end_matches(".k8s.io") };
        let scope = if def.namespaced && !self.everywhere { "Namespaced" } else { "" };
        let sub = self.sub.map(|sub| camel(sub.name, true)).unwrap_or_default();
        let suffix = match (self.everywhere, self.with_path) {
            (true, _) => "ForAllNamespaces",
            (_, true) => "WithPath",
            _ => "",
        };
        let noun = noun.replace("{}", &format!("{scope}{}{sub}", def.kind));
        let (group_id, version_id) = (camel(group, true), camel(&def.version, true));
        let kind = self.kind();
        Operation {
            method,
            id: format!("{verb}{group_id}{version_id}{noun}{suffix}"),
            tag: format!("{}_{}", camel(group, false), camel(&def.version, false)),
            description: String::new(),
            parameters: Vec::new(),
            consumes: ANY,
            produces: if def.is_custom() { CUSTOM_MEDIA.to_vec() } else { MEDIA.to_vec() },
            reads: None,
            writes: self.type_name(kind).map_or(Writes::Text, Writes::Object),
            codes: &[200],
            action: Some((action, (kind.0.into(), kind.1.into(), kind.2.into()))),
            is_custom: def.is_custom(),
        }
    }

    fn verb(&self, verb: Verb) -> Operation {
        let body = |schema: String, required| Some(Reads { schema, required });
        let own = || self.type_name(self.kind()).unwrap_or_default();
        let consumes = if self.def.is_custom() { CUSTOM_MEDIA } else { ANY };
        let named = matches!(verb, Verb::Get | Verb::Update | Verb::Patch | Verb::Delete);
        let mut out = match verb {
            Verb::List => self.list(),
            Verb::Create => Operation {
                description: self.doc("create", self.article()),
                consumes,
                reads: body(own(), true),
                codes: &[200, 201, 202],
                parameters: self.options("CreateOptions", &[]),
                ..self.operation("post", "post", "create", "{}")
            },
            Verb::DeleteCollection => self.delete_collection(),
            Verb::Update => Operation {
                description: self.doc("replace", "the specified "),
                consumes,
                reads: body(own(), true),
                codes: &[200, 201],
                parameters: self.options("UpdateOptions", &[]),
                ..self.operation("put", "put", "replace", "{}")
            },
            Verb::Patch => Operation {
                description: self.doc("partially update", "the specified "),
                consumes: if self.def.is_custom() { registry::Patch::ANY } else { registry::Patch::BUILTIN },
                reads: body(format!("{META}.Patch"), true),
                codes: &[200, 201],
                parameters: self.options("PatchOptions", &[]),
                ..self.operation("patch", "patch", "patch", "{}")
            },
            Verb::Delete => Operation {
                description: self.doc("delete", self.article()),
                reads: body(format!("{META}.DeleteOptions"), false),
                codes: &[200, 202],
                parameters: self.options("DeleteOptions", &[]),
                writes: Writes::Object(if self.def.returns_deleted { own() } else { format!("{META}.Status") }),
                ..self.operation("delete", "delete", "delete", "{}")
            },
            _ => Operation { description: self.doc("read", "the specified "), ..self.operation("get", "get", "read", "{}") },
        };
        out.parameters.push(pretty());
        out.parameters.extend(self.path_parameters(named));
        out
    }

    fn list(&self) -> Operation {
        let def = self.def;
        let or_watch = if def.verbs.contains(Verb::Watch) { "list or watch" } else { "list" };
        let list = self.type_name((&def.group, &def.version, &def.list_kind()));
        Operation {
            description: format!("{or_watch} objects of kind {}", def.kind),
            parameters: self.options("ListOptions", &[]),
            produces: if def.is_custom() { CUSTOM_MEDIA.to_vec() } else { [&MEDIA[..], &STREAMS].concat() },
            writes: list.map_or(Writes::Text, Writes::Object),
            ..self.operation("get", "list", "list", "{}")
        }
    }

    fn delete_collection(&self) -> Operation {
        let mut parameters = self.options("DeleteOptions", &[]);
        parameters.extend(self.options("ListOptions", &["watch", "allowWatchBookmarks"]));
        Operation {
            description: format!("delete collection of {}", self.def.kind),
            reads: Some(Reads { schema: format!("{META}.DeleteOptions"), required: false }),
            parameters,
            writes: Writes::Object(format!("{META}.Status")),
            ..self.operation("delete", "deletecollection", "delete", "Collection{}")
        }
    }

    /// The deprecated way to watch one object, or all.
    fn watch(&self, one: bool) -> Operation {
        let kind = &self.def.kind;
        let (action, noun, description) = match one {
            true => {
                let instead = format!("{DEPRECATED}, filtered to a single item with the 'fieldSelector' parameter.");
                ("watch", "{}", format!("watch changes to an object of kind {kind}{instead}"))
            }
            false => ("watchlist", "{}List", format!("watch individual changes to a list of {kind}{DEPRECATED}.")),
        };
        let mut parameters = self.options("ListOptions", &[]);
        parameters.push(pretty());
        parameters.extend(self.path_parameters(one));
        Operation {
            description,
            parameters,
            produces: [&MEDIA[..], &STREAMS].concat(),
            writes: Writes::Object(format!("{META}.WatchEvent")),
            ..self.operation("get", action, "watch", noun)
        }
    }

    fn log(&self) -> Operation {
        let mut parameters = parameters(self.docs, ("", "v1", "PodLogOptions"), &[]);
        parameters.push(pretty());
        parameters.extend(self.path_parameters(true));
        Operation {
            description: self.doc("read", "the specified "),
            parameters,
            produces: [&["text/plain"][..], &MEDIA].concat(),
            writes: Writes::Text,
            ..self.operation("get", "get", "read", "{}")
        }
    }

    fn connects(&self, methods: &[&'static str]) -> Vec<Operation> {
        // Proxies take their path in the query, too, even where it is in the path.
        let mut shared = self.path_parameters(true);
        shared.extend(parameters(self.docs, self.kind(), &[]));
        let connect = |method: &'static str| Operation {
            description: self.doc(&format!("connect {} requests to", method.to_uppercase()), ""),
            parameters: shared.clone(),
            produces: ANY.to_vec(),
            writes: Writes::Text,
            ..self.operation(method, "connect", "connect", &format!("{}{{}}", camel(method, true)))
        };
        methods.iter().map(|method| connect(method)).collect()
    }
}
