//! The verbs on resources: from an understood request to the registry and back.

use std::sync::Arc;

use apimachinery::Status;
use apimachinery::status::Details;
use http::{Response, StatusCode};
use kinds::{Computed, Verb};
use registry::{Context, Deleted, FieldValidation, MayCreate, Patch};
use serde_json::Value;

use crate::authz::Attributes;
use crate::body::{Body, RequestBody};
use crate::call::{Inner, On};
use crate::dispatch::Handler;
use crate::negotiate;
use crate::query::Query;
use crate::route::Target;
use crate::stages::Lasting;
use crate::{decode, respond, watch};

impl Inner {
    /// A group version that is served answers with a Status, anything else like a web server.
    pub(crate) fn unknown(&self, target: &Target<'_>) -> Result<Response<Body>, Status> {
        let known = self.registry.catalog().has_version(target.group, target.version);
        if known { Err(Status::page_not_found()) } else { Ok(respond::page_not_found()) }
    }

    /// Does what the table of dispatch says.
    pub(crate) async fn handle(&self, on: &On<'_>, handler: Handler, body: RequestBody) -> Result<Response<Body>, Status> {
        match handler {
            Handler::Object(Verb::Get) => self.get(on).await,
            // What needs more room has a place of its own: the futures of all requests are moved, and are as large as the largest.
            Handler::Object(verb) => Box::pin(self.object(on, verb, body)).await,
            Handler::Computed(Computed::Usage) => Box::pin(self.usage(on)).await,
            Handler::Computed(Computed::Health) => Box::pin(self.components(on)).await,
            Handler::Part(verb) => Box::pin(self.part(on, verb, body)).await,
            Handler::Action(_) => Box::pin(self.action(on, body)).await,
            Handler::Review => Box::pin(self.review(on, body)).await,
            Handler::Forward => Box::pin(self.forward(on, body)).await,
            Handler::Connect(connect) => Box::pin(self.connect(on, connect, body)).await,
            Handler::Document | Handler::Remote => Err(Status::page_not_found()),
        }
    }

    /// Answers with an object that was computed.
    pub(crate) fn show_computed(&self, on: &On<'_>, object: Value) -> Result<Response<Body>, Status> {
        Query::parse(on.call.query).get_options()?;
        let entry = self.registry.computed_one(on.resource, &object)?;
        Ok(respond::object(on.call.accept, StatusCode::OK, on.resource, &entry.json, on.call.query))
    }

    async fn get(&self, on: &On<'_>) -> Result<Response<Body>, Status> {
        let version = match on.call.query {
            "" => None,
            query => Query::parse(query).get_options()?,
        };
        let entry = self.registry.get(on.resource, on.target.namespace, on.target.name, version.as_deref()).await?;
        Ok(respond::object(on.call.accept, StatusCode::OK, on.resource, &entry.json, on.call.query))
    }

    pub(crate) async fn object(&self, on: &On<'_>, verb: Verb, body: RequestBody) -> Result<Response<Body>, Status> {
        let (registry, target) = (&self.registry, &on.target);
        match verb {
            Verb::Get => self.get(on).await,
            Verb::List => {
                let options = Query::parse(on.call.query).list_options(false)?;
                let list = registry.list(on.resource, on.namespace(), &options).await?;
                Ok(respond::list(on.call.accept, on.resource, list, on.call.query).await)
            }
            Verb::Watch => self.watch(on).await,
            Verb::Create => {
                let cx = on.context("CreateOptions", false)?;
                let object = on.read(&cx, body).await?;
                let entry = registry.create(&cx, on.resource, target.namespace, None, object).await?;
                Ok(respond::object(on.call.accept, StatusCode::CREATED, on.resource, &entry.json, on.call.query))
            }
            Verb::Update => self.update(on, body).await,
            Verb::Patch => self.patch(on, body).await,
            Verb::Delete => self.delete(on, body).await,
            Verb::DeleteCollection => {
                let query = Query::parse(on.call.query);
                let list = query.list_options(false)?;
                let (options, dry_run) = query.delete_options(on.delete_body(body).await?.as_ref())?;
                let cx = Context { dry_run, ..on.plain_context() };
                let deleted = registry.delete_collection(&cx, on.resource, on.namespace(), &list, options).await?;
                Ok(respond::list(on.call.accept, on.resource, deleted, on.call.query).await)
            }
        }
    }

    /// A part of an object, or a view of it.
    async fn part(&self, on: &On<'_>, verb: Verb, body: RequestBody) -> Result<Response<Body>, Status> {
        let target = &on.target;
        match verb {
            Verb::Get => {
                Query::parse(on.call.query).get_options()?;
                let object = self.registry.get_sub(on.resource, target.sub, target.namespace, target.name).await?;
                Ok(respond::value(on.call.accept, StatusCode::OK, Some(on.resource), object, on.call.query))
            }
            Verb::Update => self.update(on, body).await,
            Verb::Patch => self.patch(on, body).await,
            Verb::List | Verb::Watch | Verb::Create | Verb::Delete | Verb::DeleteCollection => Err(Status::method_not_allowed()),
        }
    }

    async fn action(&self, on: &On<'_>, body: RequestBody) -> Result<Response<Body>, Status> {
        let (cx, target) = (on.context("CreateOptions", false)?, &on.target);
        let object = on.read(&cx, body).await?;
        let made = self.registry.create_sub(&cx, on.resource, target.sub, target.namespace, target.name, object).await?;
        Ok(respond::value(on.call.accept, StatusCode::CREATED, None, made, ""))
    }

    async fn forward(&self, on: &On<'_>, body: RequestBody) -> Result<Response<Body>, Status> {
        let (cx, target, def) = (on.context("CreateOptions", false)?, &on.target, &on.resource.def);
        let (plural, sub) = def.posted_to.ok_or_else(Status::method_not_allowed)?;
        let resource = self.registry.resource(target.group, target.version, plural).ok_or_else(Status::page_not_found)?;
        let object = on.read(&cx, body).await?;
        let name = apimachinery::meta::name(&object).to_owned();
        let made = self.registry.create_sub(&cx, &resource, sub, target.namespace, &name, object).await?;
        Ok(respond::value(on.call.accept, StatusCode::CREATED, None, made, ""))
    }

    async fn watch(&self, on: &On<'_>) -> Result<Response<Body>, Status> {
        negotiate::check_stream(on.call.accept)?;
        let mut options = Query::parse(on.call.query).list_options(true)?;
        if !on.target.name.is_empty() {
            options.fields = Some(apimachinery::fields::Selector::equals("metadata.name", on.target.name));
        }
        options.timeout.get_or_insert_with(watch::default_timeout);
        on.call.keep(self.budgets.place(on.call.counted(), Lasting::Watch)?);
        match self.registry.watch(on.resource, on.namespace(), &options).await {
            Ok(watch) => watch::stream(on, watch, &self.tasks),
            Err(status) => Ok(watch::refused(on.call.accept, status)),
        }
    }

    async fn update(&self, on: &On<'_>, body: RequestBody) -> Result<Response<Body>, Status> {
        let cx = on.context("UpdateOptions", false)?;
        let cx = Context { may_create: self.may_create(on, on.resource.def.create_on_update), ..cx };
        let object = on.read(&cx, body).await?;
        let target = &on.target;
        let written = self.registry.update(&cx, on.resource, target.sub, target.namespace, target.name, object).await?;
        Ok(on.written(written))
    }

    async fn patch(&self, on: &On<'_>, body: RequestBody) -> Result<Response<Body>, Status> {
        let kind = negotiate::content_type(&on.call.parts.headers);
        let taken = on.resource.patch_types();
        if !taken.contains(&kind) {
            return Err(Status::unsupported_media_type(taken));
        }
        let apply = kind == "application/apply-patch+yaml";
        let cx = on.context("PatchOptions", apply)?;
        let cx = Context { may_create: self.may_create(on, apply), ..cx };
        let bytes = decode::read(body).await?;
        let patch = match kind {
            "application/json-patch+json" => Patch::Json(bytes),
            "application/merge-patch+json" => Patch::Merge(bytes),
            "application/strategic-merge-patch+json" => Patch::Strategic(bytes),
            _ => Patch::Apply(configuration(&cx, &bytes)?),
        };
        if let Some(record) = &on.call.record {
            match &patch {
                Patch::Json(bytes) | Patch::Merge(bytes) | Patch::Strategic(bytes) => record.asked_text(bytes),
                Patch::Apply(config) => record.asked(config),
            }
        }
        let target = &on.target;
        let written = self.registry.patch(&cx, on.resource, target.sub, target.namespace, target.name, patch).await?;
        Ok(on.written(written))
    }

    /// How the authorizers are asked whether the user may create the object; none when the request `can` create none.
    fn may_create(&self, on: &On<'_>, can: bool) -> Option<MayCreate> {
        if !can || !on.target.sub.is_empty() {
            return None;
        }
        let (authorizer, registry, user) = (self.authorizer.clone(), self.registry.clone(), on.call.user.clone());
        let (resource, namespace, name) = (on.resource.clone(), on.target.namespace.to_owned(), on.target.name.to_owned());
        let asked = Arc::new((authorizer, registry, user, resource, namespace, name));
        Some(MayCreate::new(move || {
            let asked = asked.clone();
            Box::pin(async move {
                let (authorizer, registry, user, resource, namespace, name) = &*asked;
                let attributes = Attributes {
                    verb: "create",
                    group: &resource.def.group,
                    version: &resource.def.version,
                    resource: &resource.def.plural,
                    namespace,
                    name,
                    is_resource: true,
                    ..Attributes::new(user)
                };
                authorizer.decide(registry, &attributes).await
            })
        }))
    }

    async fn delete(&self, on: &On<'_>, body: RequestBody) -> Result<Response<Body>, Status> {
        let (options, dry_run) = Query::parse(on.call.query).delete_options(on.delete_body(body).await?.as_ref())?;
        let cx = Context { dry_run, ..on.plain_context() };
        let foreground = options.orphan_dependents == Some(false);
        let accept = on.call.accept;
        match self.registry.delete(&cx, on.resource, on.target.namespace, on.target.name, options).await? {
            Deleted::Now(entry) if !on.resource.def.returns_deleted => {
                let object = entry.value();
                let details = Details {
                    name: on.target.name.to_owned(),
                    group: on.resource.def.group.to_string(),
                    kind: on.resource.def.plural.to_string(),
                    uid: apimachinery::meta::uid(&object).to_owned(),
                    ..Details::default()
                };
                Ok(respond::value(accept, StatusCode::OK, None, Status::success(&details), ""))
            }
            Deleted::Now(entry) => Ok(respond::object(accept, StatusCode::OK, on.resource, &entry.json, on.call.query)),
            Deleted::Later(entry) => {
                let code = if foreground { StatusCode::ACCEPTED } else { StatusCode::OK };
                Ok(respond::object(accept, code, on.resource, &entry.json, on.call.query))
            }
        }
    }
}

/// What is applied: YAML, whose duplicate keys are told or refused.
fn configuration(cx: &Context, bytes: &[u8]) -> Result<Value, Status> {
    let (config, duplicates) = decode::parse_yaml(bytes)?;
    match cx.field_validation {
        FieldValidation::Strict if !duplicates.is_empty() => {
            let duplicates = duplicates.concat();
            Err(Status::bad_request(format!("error strict decoding YAML: error converting YAML to JSON: {duplicates}")))
        }
        FieldValidation::Warn => {
            cx.warn_of(&duplicates);
            Ok(config)
        }
        _ => Ok(config),
    }
}

impl On<'_> {
    /// The namespace of a list, none for all.
    fn namespace(&self) -> Option<&str> {
        Some(self.target.namespace).filter(|namespace| !namespace.is_empty())
    }

    /// The circumstances of a write without options.
    pub(crate) fn plain_context(&self) -> Context {
        Context {
            user: self.call.user.clone(),
            manager: self.agent(),
            warnings: self.call.warnings.clone(),
            annotations: self.call.annotations.clone(),
            ..Context::default()
        }
    }

    /// The circumstances of a write.
    pub(crate) fn context(&self, kind: &str, apply: bool) -> Result<Context, Status> {
        if self.call.query.is_empty() && !apply {
            return Ok(self.plain_context());
        }
        let options = Query::parse(self.call.query).write_options(kind, apply)?;
        let plain = self.plain_context();
        Ok(Context {
            manager: options.manager.unwrap_or_else(|| plain.manager.clone()),
            dry_run: options.dry_run,
            force: options.force,
            field_validation: options.field_validation,
            ..plain
        })
    }

    /// The user agent up to its first slash: the default field manager.
    fn agent(&self) -> String {
        let agent =
            self.call.parts.headers.get(http::header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or("unknown");
        agent.split('/').next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(128).collect()
    }

    /// Reads and decodes the object in the body.
    pub(crate) async fn read(&self, cx: &Context, body: RequestBody) -> Result<Value, Status> {
        let def = &self.resource.def;
        let expected = def.body_kind(def.subresource(self.target.sub));
        if self.resource.is_custom() {
            decode::refuse_protobuf(&self.call.parts.headers)?;
        }
        let bytes = decode::read(body).await?;
        let (mut value, duplicates) = decode::parse(&self.call.parts.headers, &bytes, expected)?;
        let json = decode::is_json(&self.call.parts.headers).then_some(&bytes[..]);
        self.resource.decode_body(cx, self.target.sub, &mut value, duplicates, json)?;
        if let Some(record) = &self.call.record {
            record.concerns(&value);
            record.asked(&value);
        }
        Ok(value)
    }

    async fn delete_body(&self, body: RequestBody) -> Result<Option<Value>, Status> {
        let bytes = decode::read(body).await?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let (value, _) = decode::parse(&self.call.parts.headers, &bytes, decode::DELETE_OPTIONS)?;
        let value = decode::delete_options(value)?;
        self.call.record.iter().for_each(|record| record.asked(&value));
        Ok(Some(value))
    }

    fn written(&self, written: registry::Written) -> Response<Body> {
        let code = if written.created { StatusCode::CREATED } else { StatusCode::OK };
        match written.object {
            Some(object) => respond::value(self.call.accept, code, None, object, ""),
            None => respond::object(self.call.accept, code, self.resource, &written.entry.json, self.call.query),
        }
    }
}
