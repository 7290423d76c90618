//! What the documents tell of, and the hashes that name them. A hash follows from what a document derives from: this build and the kinds
//! that it tells of. So it is known before the document is made, stays when other kinds come and go, and is the same after a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use registry::{Catalog, ObjectSchema, Remote, Served};
use ring::digest::{Context, SHA256};
use serde_json::json;

use super::{prefix, roots};

/// SHA-256.
pub(super) type Digest = [u8; 32];

/// What a snapshot of the catalog has in documents.
pub(super) struct Contents {
    pub(super) catalog: Arc<Catalog>,
    /// By key, such as `apis/apps/v1`, the documents of version 3 that this server makes.
    pub(super) own: BTreeMap<String, Told>,
    /// Those that others make, and their hashes.
    pub(super) others: BTreeMap<String, String>,
    /// Of the document of version 2.
    pub(super) all: String,
}

/// A document.
#[derive(Default)]
pub(super) struct Told {
    pub(super) served: Vec<Arc<Served>>,
    pub(super) hash: String,
}

impl Contents {
    /// `remotes` are the digests of what other servers serve, in the catalog's order.
    pub(super) fn new(catalog: Arc<Catalog>, version: &str, remotes: &[Digest]) -> Self {
        let mut own: BTreeMap<String, Told> = roots::KEYS.map(|key| (key.to_owned(), Told::default())).into();
        let mut groups = BTreeSet::new();
        for served in catalog.iter() {
            let (group, version) = (&*served.def.group, &*served.def.version);
            own.entry(prefix(group, version)).or_default().served.push(served.clone());
            if !group.is_empty() && groups.insert(group) {
                own.entry(format!("apis/{group}")).or_default();
            }
        }
        let hash = |of: &str, digests: &mut dyn Iterator<Item = Digest>| {
            let mut context = Context::new(&SHA256);
            context.update(format!("{version} {} {of}\n", env!("CARGO_PKG_VERSION")).as_bytes());
            digests.for_each(|digest| context.update(&digest));
            hex(context.finish().as_ref())
        };
        for (key, told) in &mut own {
            told.hash = hash(key, &mut told.served.iter().map(|served| *source(served)));
        }
        let available = catalog.remotes().zip(remotes).filter(|(remote, _)| remote.available);
        let others = available.map(|(remote, digest)| {
            let key = prefix(&remote.group, &remote.version);
            let hash = hash(&key, &mut std::iter::once(*digest));
            (key, hash)
        });
        let all = hash("v2", &mut catalog.iter().map(|served| *source(served)).chain(remotes.iter().copied()));
        Self { others: others.collect(), all, own, catalog }
    }

    /// Where the document of a key is, by its hash.
    pub(super) fn url(key: &str, hash: &str) -> String {
        format!("/openapi/v3/{key}?hash={hash}")
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

/// The digest of what a kind's parts of the documents derive from. Of a built-in kind the build says the rest.
fn source(served: &Served) -> Arc<Digest> {
    served.derived.get(|| {
        let def = &served.def;
        let subs: Vec<_> = def.subresources.iter().map(|sub| (sub.name, sub.verbs.names())).collect();
        let facts = json!([
            def.own_kind(),
            def.list_kind(),
            def.plural,
            def.namespaced,
            def.verbs.names(),
            subs,
            served.strategy.selectable(),
        ]);
        let mut context = Context::new(&SHA256);
        context.update(facts.to_string().as_bytes());
        if let ObjectSchema::Structural(schema) = &served.schema {
            context.update(schema.source().to_string().as_bytes());
        }
        digest(context)
    })
}

/// The digest of what another server has told.
pub(super) fn told(remote: &Remote) -> Digest {
    let mut context = Context::new(&SHA256);
    for document in [&remote.resources, &remote.openapi].into_iter().flatten() {
        context.update(document.to_string().as_bytes());
    }
    digest(context)
}

fn digest(context: Context) -> Digest {
    let mut out = Digest::default();
    out.copy_from_slice(context.finish().as_ref());
    out
}
