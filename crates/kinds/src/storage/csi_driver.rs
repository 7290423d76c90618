//! CSIDriver: what a driver of the Container Storage Interface can do and needs.

use std::collections::HashSet;

use apimachinery::field::{Error, Errors, Path};
use apimachinery::meta;
use k8s_openapi::api::storage::v1::{CSIDriver, TokenRequest};
use serde_json::{Value, json};

use crate::columns::Column;
use crate::def::{KindDef, NameRule};
use crate::rules::{self, list};
use crate::typed::Kind;
use crate::util::{child_object, or_none, set_default};

/// Shortest and longest life of a token, in seconds.
const TOKEN_SECONDS: (i64, i64) = (600, 1 << 32);
/// Shortest time between two looks at what a node can take, in seconds.
const MIN_PERIOD: i64 = 10;
/// Fields that may change; each change counts a generation.
const MUTABLE: &[&str] = &["tokenRequests", "requiresRepublish", "seLinuxMount", "nodeAllocatableUpdatePeriodSeconds"];

impl Kind for CSIDriver {
    const DEF: KindDef = KindDef::of::<Self>("csidriver").name(NameRule::PathSegment).returns_deleted().cluster().versioned();

    fn apply_defaults(object: &mut Value) {
        let spec = child_object(object, "spec");
        set_default(spec, "attachRequired", true);
        for field in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
            set_default(spec, field, false);
        }
        set_default(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        if spec.get("volumeLifecycleModes").and_then(Value::as_array).is_none_or(Vec::is_empty) {
            spec["volumeLifecycleModes"] = json!(["Persistent"]);
        }
    }

    fn prepare_update(object: &mut Value, old: &Value) {
        if MUTABLE.iter().any(|field| object["spec"].get(field) != old["spec"].get(field)) {
            meta::set_generation(object, meta::generation(old) + 1);
        }
    }

    fn validate(&self, errors: &mut Errors) {
        let (spec, path) = (&self.spec, Path::new("spec"));
        let policy = spec.fs_group_policy.as_deref();
        rules::supported(&path.child("fsGroupPolicy"), policy, &["File", "None", "ReadWriteOnceWithFSType"], errors);
        tokens(list(&spec.token_requests), &path.child("tokenRequests"), errors);
        for mode in list(&spec.volume_lifecycle_modes) {
            rules::supported(&path.child("volumeLifecycleModes"), Some(mode), &["Persistent", "Ephemeral"], errors);
        }
        if let Some(period) = spec.node_allocatable_update_period_seconds.filter(|period| *period < MIN_PERIOD) {
            let detail = "must be greater than or equal to 10 seconds";
            errors.push(Error::invalid(&path.child("nodeAllocatableUpdatePeriodSeconds"), period, detail));
        }
        if spec.service_account_token_in_secrets.is_some() && list(&spec.token_requests).is_empty() {
            let detail = "may only be set when tokenRequests is configured";
            let set = spec.service_account_token_in_secrets;
            errors.push(Error::invalid(&path.child("serviceAccountTokenInSecrets"), json!(set), detail));
        }
    }

    /// A name is that of a driver, as volumes have it.
    fn validate_create(&self, errors: &mut Errors) {
        rules::driver_name(&Path::new("name"), self.metadata.name.as_deref().unwrap_or_default(), errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let (new, old, path) = (&self.spec, &old.spec, Path::new("spec"));
        rules::immutable(&path.child("attachedRequired"), &new.attach_required, &old.attach_required, errors);
        let modes = (&new.volume_lifecycle_modes, &old.volume_lifecycle_modes);
        rules::immutable(&path.child("volumeLifecycleModes"), modes.0, modes.1, errors);
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            &[
                Column::boolean("AttachRequired", "Whether volumes are attached to nodes.", |driver, _| {
                    driver.spec.attach_required.unwrap_or(true).into()
                }),
                Column::boolean("PodInfoOnMount", "Whether the driver is told of the pod.", |driver, _| {
                    driver.spec.pod_info_on_mount.unwrap_or(false).into()
                }),
                Column::boolean("StorageCapacity", "Whether the scheduler asks for the capacity.", |driver, _| {
                    driver.spec.storage_capacity.unwrap_or(false).into()
                }),
                Column::new("TokenRequests", "Audiences of the tokens that the driver gets.", |driver, _| {
                    driver.spec.token_requests.as_ref().map_or("<unset>".into(), |tokens| audiences(tokens).into())
                }),
                Column::boolean("RequiresRepublish", "Whether volumes are published again and again.", |driver, _| {
                    driver.spec.requires_republish.unwrap_or(false).into()
                }),
                Column::new("Modes", "Kinds of volumes that the driver supports.", |driver, _| {
                    or_none(list(&driver.spec.volume_lifecycle_modes).join(","))
                }),
            ]
        }
    }
}

fn audiences(tokens: &[TokenRequest]) -> String {
    tokens.iter().map(|token| token.audience.as_str()).collect::<Vec<_>>().join(",")
}

/// Tokens for different audiences.
fn tokens(tokens: &[TokenRequest], path: &Path, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (index, token) in tokens.iter().enumerate() {
        let path = path.index(index);
        if !seen.insert(token.audience.as_str()) {
            errors.push(Error::duplicate(&path.child("audience"), token.audience.as_str()));
            continue;
        }
        let Some(seconds) = token.expiration_seconds else { continue };
        let detail = match seconds {
            seconds if seconds < TOKEN_SECONDS.0 => "may not specify a duration less than 10 minutes",
            seconds if seconds > TOKEN_SECONDS.1 => "may not specify a duration larger than 2^32 seconds",
            _ => continue,
        };
        errors.push(Error::invalid(&path.child("expirationSeconds"), seconds, detail));
    }
}
