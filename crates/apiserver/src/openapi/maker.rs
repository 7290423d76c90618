//! Puts documents together of the parts of what is served.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use registry::{Registry, Remote, Served};
use schema::TypeId;
use schema::openapi::Docs;
use serde_json::{Value, json};

use super::contents::{Contents, Digest, Told, told};
use super::part::{Document, Part, length};
use super::parts::{self, Contribution, Descriptions, Form, Others, Types};
use super::{gnostic, paths, prefix, roots};

/// Where the types of options are, which all requests share.
const OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// Types of the table by what needs them.
type TypeSets = HashMap<(Form, Vec<TypeId>), Arc<Types>>;

/// Makes documents, and keeps the parts that belong to no kind.
pub(super) struct Maker {
    pub(super) registry: Arc<Registry>,
    version: &'static str,
    options: OnceLock<Docs>,
    types: Mutex<TypeSets>,
    roots: Mutex<HashMap<(Form, String), Arc<Part>>>,
    others: Mutex<Vec<Arc<Others>>>,
    remotes: Mutex<Vec<(Arc<Remote>, Digest)>>,
}

impl Maker {
    pub(super) fn new(registry: Arc<Registry>, version: &'static str) -> Self {
        Self {
            registry,
            version,
            options: OnceLock::new(),
            types: Mutex::default(),
            roots: Mutex::default(),
            others: Mutex::default(),
            remotes: Mutex::default(),
        }
    }

    /// What there is to tell now.
    pub(super) fn contents(&self) -> Contents {
        let catalog = self.registry.catalog();
        let mut known = self.remotes.lock();
        let of = |remote: &Arc<Remote>| known.iter().find(|(other, _)| Arc::ptr_eq(other, remote)).map(|(_, digest)| *digest);
        let next: Vec<_> = catalog.remotes().map(|remote| (remote.clone(), of(remote).unwrap_or_else(|| told(remote)))).collect();
        let digests: Vec<Digest> = next.iter().map(|(_, digest)| *digest).collect();
        *known = next;
        Contents::new(catalog, self.version, &digests)
    }

    /// A document of version 3.
    pub(super) fn v3(&self, contents: &Contents, key: &str, told: &Told) -> Document {
        let descriptions = self.descriptions();
        let all: Vec<_> = told.served.iter().map(|served| self.contribution(contents, served, Form::V3, &descriptions)).collect();
        let types = self.types(Form::V3, &all, roots::types([key]), &descriptions);
        let info = json!({"title": "Kubernetes", "version": self.version});
        let mut document = Document::default();
        document.push(format!("{{\"openapi\":\"3.0.0\",\"info\":{info},\"paths\":{{").as_bytes());
        document.list(std::iter::once(root(Form::V3, key)).chain(all.iter().map(|one| one.paths.clone())));
        document.push(b"},\"components\":{\"schemas\":{");
        let own = (key == "version").then(|| Form::V3.schemas(&roots::definitions()));
        document.list(std::iter::once(types.part.clone()).chain(own).chain(schemas(&all, &types)));
        document.push(format!("}},\"securitySchemes\":{}}}}}", bearer_token()).as_bytes());
        document
    }

    /// The document of version 2.
    pub(super) fn v2(&self, contents: &Contents, form: Form) -> Document {
        let descriptions = self.descriptions();
        // Another server comes before what is served here.
        let remotes: Vec<Arc<Remote>> = contents.catalog.remotes().cloned().collect();
        let theirs: BTreeSet<String> = remotes.iter().map(|remote| prefix(&remote.group, &remote.version)).collect();
        let own = contents.own.iter().filter(|(key, _)| !theirs.contains(*key));
        let served = own.clone().flat_map(|(_, told)| &told.served);
        let all: Vec<_> = served.map(|served| self.contribution(contents, served, form, &descriptions)).collect();
        let types = self.types(form, &all, roots::types(roots::EACH), &descriptions);
        let others = self.others(form, &remotes, &types, &all);
        let groups = remotes.iter().map(|remote| format!("apis/{}", remote.group));
        let keys: BTreeSet<String> = own.map(|(key, _)| key.clone()).chain(groups).collect();
        let paths =
            self.roots(form, keys).into_iter().chain(all.iter().map(|one| one.paths.clone())).chain([others.paths.clone()]);
        let known = [types.part.clone(), form.schemas(&roots::definitions())];
        let definitions = known.into_iter().chain(schemas(&all, &types)).chain([others.schemas.clone()]);
        let (head, tail) = (
            json!({"swagger": "2.0", "info": {"title": "Kubernetes", "version": self.version}}),
            json!({"securityDefinitions": bearer_token(), "security": [{"BearerToken": []}]}),
        );
        match form {
            Form::Protobuf => protobuf(&head, paths.collect(), definitions.collect(), &tail),
            Form::V2 | Form::V3 => {
                let mut document = Document::default();
                document.push(format!("{{\"swagger\":\"2.0\",\"info\":{},\"paths\":{{", head["info"]).as_bytes());
                document.list(paths);
                document.push(b"},\"definitions\":{");
                document.list(definitions);
                let tail =
                    format!("}},\"securityDefinitions\":{},\"security\":{}}}", tail["securityDefinitions"], tail["security"]);
                document.push(tail.as_bytes());
                document
            }
        }
    }

    fn descriptions(&self) -> Descriptions<'_> {
        Descriptions::new(self.options.get_or_init(|| Docs::builtin().of_package(OPTIONS)))
    }

    fn contribution(
        &self,
        contents: &Contents,
        served: &Served,
        form: Form,
        descriptions: &Descriptions<'_>,
    ) -> Arc<Contribution> {
        parts::of(served, form, descriptions, |operations| {
            if form != Form::V3 {
                paths::hide_field_validation(&contents.catalog, operations);
            }
        })
    }

    /// The types of the table that these need, and some others.
    fn types(
        &self,
        form: Form,
        all: &[Arc<Contribution>],
        mut types: Vec<TypeId>,
        descriptions: &Descriptions<'_>,
    ) -> Arc<Types> {
        types.extend(all.iter().flat_map(|one| &one.types));
        types.sort_unstable();
        types.dedup();
        let mut known = self.types.lock();
        known.entry((form, types)).or_insert_with_key(|(form, types)| Arc::new(Types::new(*form, types, descriptions))).clone()
    }

    /// The operations that are on no objects.
    fn roots(&self, form: Form, keys: BTreeSet<String>) -> Vec<Arc<Part>> {
        let mut known = self.roots.lock();
        known.retain(|(other, key), _| *other != form || keys.contains(key));
        keys.into_iter().map(|key| known.entry((form, key)).or_insert_with_key(|(form, key)| root(*form, key)).clone()).collect()
    }

    /// What other servers add. What a custom resource is called stays its own, which is seldom asked for.
    fn others(&self, form: Form, remotes: &[Arc<Remote>], types: &Arc<Types>, own: &[Arc<Contribution>]) -> Arc<Others> {
        let mut known = self.others.lock();
        let others = known.iter().find(|others| others.is_of(form, remotes, types)).cloned();
        let others = others.unwrap_or_else(|| {
            let made = Arc::new(Others::new(form, remotes, types));
            // Those of other forms stay, if they are of the same servers.
            known.retain(|others| others.form() != form);
            known.push(made.clone());
            made
        });
        if remotes.is_empty() {
            return others;
        }
        let taken: HashSet<&str> = own.iter().flat_map(|one| &one.names).map(String::as_str).collect();
        if others.have_any(&taken) { Arc::new(Others::without(form, remotes, types, &taken)) } else { others }
    }
}

fn root(form: Form, key: &str) -> Arc<Part> {
    form.operations(&roots::operations(key).into_iter().collect())
}

/// The types of custom resources, but for those that have the name of one of the table.
fn schemas<'a>(all: &'a [Arc<Contribution>], types: &'a Types) -> impl Iterator<Item = Arc<Part>> + 'a {
    let own = all.iter().filter(|one| !one.names.iter().any(|name| types.names.contains(name)));
    own.map(|one| one.schemas.clone())
}

fn protobuf(head: &Value, paths: Vec<Arc<Part>>, definitions: Vec<Arc<Part>>, tail: &Value) -> Document {
    let mut document = Document::default();
    document.push(&gnostic::fields(head));
    for (field, parts) in [(gnostic::PATHS, paths), (gnostic::DEFINITIONS, definitions)] {
        document.push(&gnostic::head(field, length(&parts)));
        document.extend(parts);
    }
    document.push(&gnostic::fields(tail));
    document
}

/// The scheme of authentication that all operations have.
fn bearer_token() -> Value {
    json!({"BearerToken": {
        "type": "apiKey", "description": "Bearer Token authentication", "name": "authorization", "in": "header",
    }})
}
