//! ResourceSlice: a part of the devices that a driver offers.

use apimachinery::field::{Error, Errors, Path};
use apimachinery::time;
use k8s_openapi::api::resource::v1::{CounterSet, Device, ResourcePool, ResourceSlice, ResourceSliceSpec};
use serde_json::{Value, json};

use super::{device, each_once, pool_name};
use crate::columns::Column;
use crate::core::pod::node_selector;
use crate::def::KindDef;
use crate::rules::{self, NOT_POSITIVE, list, text};
use crate::typed::Kind;
use crate::util::{self, remove, set_default};

const MAX_DEVICES: usize = 128;
/// Devices with taints, counters or lists of values are larger.
const MAX_LARGE_DEVICES: usize = 64;
const MAX_COUNTER_SETS: usize = 8;
const WHERE: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
/// Fields of features that are off by default: DRAListTypeAttributes.
const LISTS: &[&str] = &["bools", "ints", "strings", "versions"];
/// And DRANodeAllocatableResources.
const MAPPINGS: &str = "nodeAllocatableResourceMappings";

impl Kind for ResourceSlice {
    const DEF: KindDef = KindDef::of::<Self>("resourceslice").returns_deleted().cluster().generation();
    const SELECTABLE: &'static [&'static str] = &["spec.nodeName", "spec.driver"];

    fn field(object: &Value, name: &'static str) -> String {
        util::text(object, if name == "spec.driver" { "/spec/driver" } else { "/spec/nodeName" }).to_owned()
    }

    /// A taint that has no time is new.
    fn apply_defaults(object: &mut Value) {
        for device in devices(object) {
            util::each(device, "taints").for_each(|taint| set_default(taint, "timeAdded", time::now()));
        }
    }

    fn prepare_create(object: &mut Value) {
        drop_disabled(object);
    }

    fn prepare_update(object: &mut Value, old: &Value) {
        if !uses_disabled(old) {
            drop_disabled(object);
        }
    }

    fn validate(&self, errors: &mut Errors) {
        validate_spec(&self.spec, &Path::new("spec"), errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let (new, old, path) = (&self.spec, &old.spec, Path::new("spec"));
        rules::immutable(&path.child("pool.name"), &new.pool.name, &old.pool.name, errors);
        rules::immutable(&path.child("driver"), &new.driver, &old.driver, errors);
        rules::immutable(&path.child("nodeName"), &new.node_name, &old.node_name, errors);
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            &[
                Column::new("Node", "The node that has the devices.", |slice, _| text(&slice.spec.node_name).into()),
                Column::new("Driver", "The driver that offers them.", |slice, _| slice.spec.driver.as_str().into()),
                Column::new("Pool", "The pool that they belong to.", |slice, _| slice.spec.pool.name.as_str().into()),
            ]
        }
    }
}

fn devices(object: &mut Value) -> impl Iterator<Item = &mut Value> {
    object.pointer_mut("/spec/devices").and_then(Value::as_array_mut).into_iter().flatten()
}

fn attributes(device: &mut Value) -> impl Iterator<Item = &mut Value> {
    device.get_mut("attributes").and_then(Value::as_object_mut).into_iter().flat_map(|map| map.values_mut())
}

fn drop_disabled(object: &mut Value) {
    for device in devices(object) {
        remove(device, MAPPINGS);
        for attribute in attributes(device) {
            LISTS.iter().for_each(|field| remove(attribute, field));
        }
    }
}

fn uses_disabled(object: &Value) -> bool {
    let mut object = object.clone();
    let before = object.clone();
    drop_disabled(&mut object);
    object != before
}

fn validate_spec(spec: &ResourceSliceSpec, path: &Path, errors: &mut Errors) {
    rules::driver_name(&path.child("driver"), &spec.driver, errors);
    validate_pool(&spec.pool, &path.child("pool"), errors);
    validate_nodes(spec, path, errors);
    if spec.shared_counters.is_some() && spec.devices.is_some() {
        errors.push(Error::invalid(path, "", "only one of `sharedCounters` or `devices` is allowed"));
    }
    let devices = list(&spec.devices);
    let max = if devices.iter().any(device::is_large) { MAX_LARGE_DEVICES } else { MAX_DEVICES };
    let check = |one: &Device, path: &Path, errors: &mut Errors| {
        device::validate(one, spec.per_device_node_selection == Some(true), path, errors);
    };
    each_once(devices, max, &path.child("devices"), errors, check, |device| device.name.clone());
    let check = |set: &CounterSet, path: &Path, errors: &mut Errors| {
        device::counters(&path.child("name"), &set.name, &path.child("counters"), &set.counters, errors);
    };
    let sets = list(&spec.shared_counters);
    each_once(sets, MAX_COUNTER_SETS, &path.child("sharedCounters"), errors, check, |set| set.name.clone());
}

fn validate_pool(pool: &ResourcePool, path: &Path, errors: &mut Errors) {
    pool_name(&path.child("name"), &pool.name, errors);
    if pool.resource_slice_count <= 0 {
        errors.push(Error::invalid(&path.child("resourceSliceCount"), pool.resource_slice_count, NOT_POSITIVE));
    }
    if pool.generation < 0 {
        let detail = "must be greater than or equal to zero";
        errors.push(Error::invalid(&path.child("generation"), pool.generation, detail));
    }
}

/// Where the devices are is said in one way.
fn validate_nodes(spec: &ResourceSliceSpec, path: &Path, errors: &mut Errors) {
    let mut set = Vec::new();
    match spec.node_name.as_deref() {
        Some("") => {
            let detail = "must be either unset or set to a non-empty string";
            errors.push(Error::invalid(&path.child("nodeName"), "", detail));
        }
        Some(name) => {
            set.push("`nodeName`");
            rules::dns_subdomain(&path.child("nodeName"), name, errors);
        }
        None => {}
    }
    if let Some(selector) = &spec.node_selector {
        set.push("`nodeSelector`");
        let at = path.child("nodeSelector");
        node_selector(selector, true, &at, errors);
        if selector.node_selector_terms.len() != 1 {
            let (at, terms) = (at.child("nodeSelectorTerms"), json!(selector.node_selector_terms));
            errors.push(Error::invalid(&at, terms, "must have exactly one node selector term"));
        }
    }
    let flags = [
        ("allNodes", "`allNodes`", spec.all_nodes),
        ("perDeviceNodeSelection", "`perDeviceNodeSelection`", spec.per_device_node_selection),
    ];
    for (field, quoted, value) in flags {
        match value {
            Some(true) => set.push(quoted),
            Some(false) => errors.push(Error::invalid(&path.child(field), false, "must be either unset or set to true")),
            None => {}
        }
    }
    match set.len() {
        0 => errors.push(Error::required(path, WHERE)),
        1 => {}
        _ => {
            let detail = format!("{WHERE}, but multiple fields are set");
            errors.push(Error::invalid(path, format!("{{{}}}", set.join(", ")), detail));
        }
    }
}
