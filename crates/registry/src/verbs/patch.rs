//! patch, of all four types

use std::sync::Arc;

use apimachinery::apply::Seen;
use apimachinery::field::{Error, Errors, Path};
use apimachinery::{GroupVersionKind, Status, apply, gvk, meta, patch};
use bytes::Bytes;
use kinds::Behaviour;
use schema::Schema;
use serde_json::Value;

use crate::decode_error::DecodeError;
use crate::entry::parts;
use crate::pipeline::{check_name, check_namespace};
use crate::target::{How, Target};
use crate::verbs::create::by;
use crate::verbs::{CONFLICT_ATTEMPTS, Created, Live};
use crate::{Context, Entry, FieldValidation, ObjectSchema, Patch, Registry, Served, Written};

impl Registry {
    /// Changes an object, or the part of it that `sub` names, by a patch.
    pub async fn patch(
        &self,
        cx: &Context,
        res: &Served,
        sub: &str,
        namespace: &str,
        name: &str,
        patch: Patch,
    ) -> Result<Written, Status> {
        let how = if matches!(patch, Patch::Apply(_)) { How::Apply } else { How::Patch };
        let target = Target { cx, res, sub, namespace, name, how, apart: false };
        if let Some(Behaviour::Scale) = res.behaviour(sub) {
            return self.patch_scale(target, &res.def.scale, &patch).await;
        }
        let mut conflict = None;
        for _ in 0..CONFLICT_ATTEMPTS {
            let current = res.storage.cache.get(&target.path());
            let result = match (&patch, current) {
                (Patch::Apply(config), current) => self.apply(target, config, current).await,
                (_, None) => return Err(target.not_found()),
                (_, Some(current)) => self.patch_once(target, &patch, &current).await,
            };
            match result {
                Err(status) if status == target.modified() && !pins_version(&patch) => conflict = Some(status),
                // Somebody deleted it meanwhile: an apply creates what is missing. Who loses again and again is told of a conflict.
                Err(status) if creates(&patch, sub) && status == target.not_found() && !pins_version(&patch) => {
                    conflict = Some(target.modified())
                }
                other => return other,
            }
        }
        Err(conflict.unwrap_or_else(|| target.modified()))
    }

    async fn patch_once(&self, target: Target<'_>, patch: &Patch, current: &Arc<Entry>) -> Result<Written, Status> {
        let spares_managed_fields = !speaks_of_managed_fields(patch);
        let mut live = self.live(target, current, spares_managed_fields && is_of_status(patch)).await?;
        let old = &mut live.object;
        // Managed fields are the larger half of many objects. A patch that does not speak of them patches the rest, and a write
        // without any keeps the stored ones.
        let kept = if spares_managed_fields { meta::remove(old, "managedFields") } else { None };
        let patched = patched(target, old, patch);
        if let Some(kept) = kept {
            meta::set(old, "managedFields", kept);
        }
        let mut object = patched?;
        check_namespace(&mut object, target.namespace)?;
        check_name(meta::name(&object), target.name)?;
        let entry = self.replace(target, live, object, true).await?;
        Ok(Written { entry, created: false, object: None })
    }

    /// Server-side apply (KEP-555): creates what is missing.
    async fn apply(&self, target: Target<'_>, config: &Value, current: Option<Arc<Entry>>) -> Result<Written, Status> {
        let Target { cx, res, sub, namespace, name, .. } = target;
        let mut config = config.clone();
        check_shape(&config)?;
        check_type(target, &config)?;
        super::create::check_identity(&mut config, namespace, Some(name))?;
        let now = apimachinery::time::now();
        let old = match &current {
            Some(entry) => Some(res.value(entry).await?),
            None => None,
        };
        let by = by(cx, res, sub, &now);
        let merged = |seen: Seen<'_>| apply::apply(seen, old.as_ref(), &config, &by, cx.force);
        let mut merged = self.siblings(res).resolve(merged).await??;
        res.decode(cx, sub, &mut merged)?;
        match current {
            Some(current) => {
                let live = Live { entry: &current, object: old.unwrap_or_default(), rest: None };
                let entry = self.replace(target, live, merged, false).await?;
                Ok(Written { entry, created: false, object: None })
            }
            None if sub.is_empty() => {
                target.may_create().await?;
                if !meta::uid(&config).is_empty() {
                    return Err(Status::uid_precondition(&res.group_resource, name, meta::uid(&config), ""));
                }
                match self.create_from(cx, res, namespace, Some(name), merged, Created::Applied).await {
                    // Somebody created it meanwhile: apply to that one.
                    Err(status) if status.is(apimachinery::Reason::AlreadyExists) => Err(target.modified()),
                    other => other.map(|entry| Written { entry, created: true, object: None }),
                }
            }
            None => Err(target.not_found()),
        }
    }
}

/// Whether a patch makes what is not there.
fn creates(patch: &Patch, sub: &str) -> bool {
    matches!(patch, Patch::Apply(_)) && sub.is_empty()
}

/// Whether a patch speaks of nothing but what a write of the status may change.
fn is_of_status(patch: &Patch) -> bool {
    match patch {
        Patch::Json(_) | Patch::Apply(_) => false,
        Patch::Merge(bytes) | Patch::Strategic(bytes) => parts::has_own_alone(bytes),
    }
}

/// Whether a patch may touch managed fields: it names them, or replaces what they are a part of.
fn speaks_of_managed_fields(patch: &Patch) -> bool {
    match patch {
        Patch::Json(_) | Patch::Apply(_) => true,
        // A key may be written with escapes.
        Patch::Merge(bytes) | Patch::Strategic(bytes) => {
            memchr::memchr(b'\\', bytes).is_some()
                || [&b"managedFields"[..], b"$"].iter().any(|word| memchr::memmem::find(bytes, word).is_some())
        }
    }
}

/// What is applied is an object with an object's metadata; all else is found out when it is decoded.
pub(crate) fn check_shape(config: &Value) -> Result<(), Status> {
    let good = |value: &Value| value.is_object() || value.is_null();
    if !config.is_object() {
        return Err(Status::bad_request("error decoding patch: the body must be an object in YAML or JSON"));
    }
    if !config.get("metadata").is_none_or(good) {
        return Err(Status::bad_request("error decoding patch: metadata must be an object"));
    }
    Ok(())
}

/// What is applied says what it is, of the version that the path names: an object of another type, or of none, would own fields of a
/// type that nobody knows (upstream: `managedfields/internal/versioncheck.go`).
pub(crate) fn check_type(target: Target<'_>, config: &Value) -> Result<(), Status> {
    let def = &target.res.def;
    let (group, version, kind) = def.body_kind(def.subresource(target.sub));
    if (meta::api_version(config), meta::kind(config)) == (&gvk::api_version(group, version), kind) {
        return Ok(());
    }
    Err(Status::bad_request(format!("invalid object type: {}", GroupVersionKind::of(config))))
}

/// The patched object, decoded. Unknown and duplicate fields of the patch and of what it makes are told or refused together; as
/// upstream, such a patch is refused as an invalid one (422) and not as a bad request.
pub(crate) fn patched(target: Target<'_>, old: &Value, patch: &Patch) -> Result<Value, Status> {
    let undecodable = |why| undecodable(patch, why);
    let schema = target.res.body_schema(target.sub).ok_or_else(|| undecodable(DecodeError::NoSchema(target.sub.to_owned())))?;
    let (mut object, mut problems) = apply_patch(&schema, old, patch, target.cx.field_validation)?;
    let mut unknown = target.res.settle(target.sub, &mut object).map_err(undecodable)?;
    if matches!(patch, Patch::Strategic(_)) {
        // As upstream's converter of what such a patch makes: it walks maps, which have no order, and sorts what it has found.
        unknown.sort_unstable();
    }
    problems.extend(unknown);
    target.cx.strictly(problems).map_err(|error| undecodable(error.into()))?;
    Ok(object)
}

/// The patched object as the patch makes it, and what is wrong with the keys of the patch, where that is asked for.
fn apply_patch(
    schema: &ObjectSchema,
    old: &Value,
    patch: &Patch,
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), Status> {
    let lenient = validation == FieldValidation::Ignore;
    let read = |bytes: &Bytes| match lenient {
        true => patch::parse_object(bytes).map(|change| (change, Vec::new())),
        false => patch::strict_object(bytes),
    };
    let (mut object, problems) = match patch {
        Patch::Json(bytes) if lenient => (patch::json_patch(old, bytes)?, Vec::new()),
        Patch::Json(bytes) => {
            let (operations, problems) = patch::strict_operations(bytes)?;
            (patch::json(old, &operations)?, problems)
        }
        Patch::Merge(bytes) => {
            let (change, problems) = read(bytes)?;
            (patch::merge(old, &change)?, problems)
        }
        Patch::Strategic(bytes) => match schema {
            ObjectSchema::Builtin(ty) => {
                let (change, problems) = read(bytes)?;
                (patch::strategic(Schema::builtin(), *ty, old, &change)?, problems)
            }
            ObjectSchema::Structural(_) => return Err(Status::unsupported_media_type(Patch::ANY)),
        },
        Patch::Apply(_) => return Err(Status::internal("apply is not a patch of the object alone")),
    };
    settle_type(&mut object, old, patch)?;
    Ok((object, problems))
}

/// The answer to a patch that makes no good object, which as upstream names no object. Upstream also shows the patch, or what it makes: the
/// audit log would tell it to all who read that, and it may be a Secret.
fn invalid(patch: &Patch, detail: impl Into<String>) -> Status {
    let kind = match patch {
        Patch::Json(_) => "JSON patch",
        Patch::Merge(_) => "merge patch",
        Patch::Strategic(_) => "strategic merge patch",
        Patch::Apply(_) => "applied configuration",
    };
    let mut errors = Errors::new();
    errors.push(Error::invalid(&Path::new("patch"), kind, detail));
    Status::invalid("", "", "", &errors)
}

/// The answer to a patch that makes what cannot be decoded.
fn undecodable(patch: &Patch, why: DecodeError) -> Status {
    match why {
        DecodeError::NoSchema(_) => Status::internal(why),
        DecodeError::Kind(_) | DecodeError::Type(_) | DecodeError::Strict(_) => invalid(patch, why.to_string()),
    }
}

/// The patched object is of the type that is patched. As upstream, a strategic merge patch may say anything of it, while what
/// others make of the object is decoded as what it says it is: nothing, or the same type.
fn settle_type(object: &mut Value, old: &Value, patch: &Patch) -> Result<(), Status> {
    let any = matches!(patch, Patch::Strategic(_));
    for key in ["apiVersion", "kind"] {
        let (new, own) = (object.get(key), old.get(key));
        if !any && new != own && new.is_some_and(|new| !new.is_null() && *new != "") {
            let (kind, version) = (meta::kind(object), meta::api_version(object));
            let text = format!("no kind {kind:?} is registered for version {version:?}");
            return Err(invalid(patch, text));
        }
        // A JSON patch can make a list of it, which is refused when it is decoded.
        if let (Some(own), Some(object)) = (own.cloned(), object.as_object_mut()) {
            object.insert(key.to_owned(), own);
        }
    }
    Ok(())
}

/// Whether the patch names the version that it is meant for: then a conflict is the answer.
fn pins_version(patch: &Patch) -> bool {
    let decode = |bytes| serde_json::from_slice::<Value>(bytes).unwrap_or_default();
    match patch {
        Patch::Json(bytes) => {
            decode(bytes).as_array().into_iter().flatten().any(|operation| operation["path"] == "/metadata/resourceVersion")
        }
        Patch::Merge(bytes) | Patch::Strategic(bytes) => !meta::resource_version(&decode(bytes)).is_empty(),
        Patch::Apply(config) => !meta::resource_version(config).is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// `patcher.applyPatchToObject` decodes what a strategic merge makes by the Go type, the other patches by what the text says.
    #[test]
    fn types_of_patched_objects() {
        let old = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}});
        let Some(ty) = Schema::builtin().kind("", "v1", "ConfigMap") else { panic!("ConfigMap is in the schema") };
        let schema = ObjectSchema::Builtin(ty);
        let check = |change: Value, strategic: Result<(), u16>, merge: Result<(), u16>| {
            let bytes = bytes::Bytes::from(change.to_string());
            for (patch, expected) in [(Patch::Strategic(bytes.clone()), strategic), (Patch::Merge(bytes), merge)] {
                let got = apply_patch(&schema, &old, &patch, FieldValidation::Warn);
                assert_eq!(got.map(|(object, _)| assert_eq!(object, old)).map_err(|status| status.code), expected, "{patch:?}");
            }
        };
        check(json!({}), Ok(()), Ok(()));
        check(json!({"kind": null, "apiVersion": null}), Ok(()), Ok(()));
        check(json!({"kind": "ConfigMap", "apiVersion": "v1"}), Ok(()), Ok(()));
        check(json!({"kind": "Foo"}), Ok(()), Err(422));
        check(json!({"apiVersion": "apps/v1"}), Ok(()), Err(422));
        check(json!({"kind": 1}), Ok(()), Err(422));
    }

    /// What is wrong with the object is told whole, also where it has colons; what is wrong with the server is not the patch's fault.
    #[test]
    fn answers_to_patches_that_make_no_good_object() {
        let patch = Patch::Merge(Bytes::new());
        let check = |why: DecodeError, code: u16, detail: &str| {
            let status = undecodable(&patch, why);
            assert_eq!((status.code, status.message.ends_with(detail)), (code, true), "{}", status.message);
        };
        check(DecodeError::Kind("this: and that".to_owned()), 422, "patch: Invalid value: \"merge patch\": this: and that");
        check(DecodeError::NoSchema("scale".to_owned()), 500, "no schema for subresource scale");
    }

    /// `patcher.applyPatchToObject` decodes what the patch makes of the whole document, which may be a list.
    #[test]
    fn a_list_instead_of_an_object_is_refused() {
        let catalog = crate::Catalog::builtin(kinds::KINDS).expect("all kinds have a schema");
        let res = catalog.get("", "v1", "configmaps").expect("they are served");
        let (cx, old) = (Context::default(), json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}));
        let target = Target { cx: &cx, res, sub: "", namespace: "n", name: "c", how: How::Patch, apart: false };
        let replace = |value: Value| Patch::Json(json!([{"op": "replace", "path": "", "value": value}]).to_string().into());
        assert_eq!(
            patched(target, &old, &replace(json!({}))).map(|object| object["kind"].clone()).ok(),
            Some(json!("ConfigMap"))
        );
        let refused = patched(target, &old, &replace(json!([]))).expect_err("a list is no object");
        assert!(refused.code == 422 && refused.message.contains("couldn't get version/kind"), "{}", refused.message);
    }
}
