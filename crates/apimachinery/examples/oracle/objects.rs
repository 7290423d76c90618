//! Random objects of a kind, made and changed by its type: every kind of list and map that the API has.

use schema::{Field, ListKind, Schema, Type, TypeId};
use serde_json::{Map, Value, json};

use crate::dice::Dice;

/// Kinds whose types have every merge strategy between them.
pub const KINDS: &[(&str, &str, &str)] = &[
    ("", "v1", "Pod"),
    ("", "v1", "Service"),
    ("", "v1", "Node"),
    ("", "v1", "ServiceAccount"),
    ("", "v1", "PersistentVolumeClaim"),
    ("", "v1", "ConfigMap"),
    ("", "v1", "ResourceQuota"),
    ("apps", "v1", "Deployment"),
    ("apps", "v1", "StatefulSet"),
    ("apps", "v1", "ControllerRevision"),
    ("autoscaling", "v2", "HorizontalPodAutoscaler"),
    ("batch", "v1", "CronJob"),
    ("discovery.k8s.io", "v1", "EndpointSlice"),
    ("networking.k8s.io", "v1", "Ingress"),
    ("networking.k8s.io", "v1", "NetworkPolicy"),
    ("policy", "v1", "PodDisruptionBudget"),
    ("rbac.authorization.k8s.io", "v1", "ClusterRole"),
    ("resource.k8s.io", "v1", "ResourceClaim"),
    ("admissionregistration.k8s.io", "v1", "ValidatingWebhookConfiguration"),
];
/// Fields of metadata that clients write.
const METADATA: &[&str] = &["labels", "annotations", "finalizers", "ownerReferences"];
const DEEPEST: usize = 9;
const WORDS: &[&str] = &["a", "b", "c", "d"];

/// A kind, and the dice with which its objects are made.
pub struct Maker<'a> {
    pub schema: &'static Schema,
    pub ty: TypeId,
    pub dice: &'a mut Dice,
}

impl Maker<'_> {
    /// An object in canonical form.
    pub fn object(&mut self, (group, version, kind): (&str, &str, &str)) -> Value {
        let mut object = self.structure(self.ty, 0);
        object["apiVersion"] = json!(apimachinery::gvk::api_version(group, version));
        object["kind"] = json!(kind);
        self.named(&mut object);
        self.canonical(object)
    }

    /// Another object of the same name that has much in common with this one.
    pub fn changed(&mut self, object: &Value) -> Value {
        let mut object = object.clone();
        let (version, kind) = (object["apiVersion"].clone(), object["kind"].clone());
        self.change_struct(self.ty, &mut object, 0);
        (object["apiVersion"], object["kind"]) = (version, kind);
        self.named(&mut object);
        self.canonical(object)
    }

    /// Some of what an object says, as an apply or a patch says it.
    pub fn part(&mut self, object: &Value) -> Value {
        let mut part = object.clone();
        for section in ["spec", "status", "data"] {
            self.forget(&mut part[section]);
        }
        let map = part.as_object_mut().unwrap();
        map.retain(|_, value| !value.is_null());
        map["metadata"]["namespace"] = json!("n");
        part
    }

    /// Takes some fields away at every depth; those that tell items apart stay.
    fn forget(&mut self, value: &mut Value) {
        match value {
            Value::Object(map) => {
                map.retain(|key, _| {
                    [
                        "name",
                        "type",
                        "port",
                        "uid",
                        "ip",
                        "topologyKey",
                        "whenUnsatisfiable",
                        "containerPort",
                        "protocol",
                        "mountPath",
                        "devicePath",
                        "key",
                        "conditionType",
                        "number",
                    ]
                    .contains(&key.as_str())
                        || !self.dice.chance(25)
                });
                map.values_mut().for_each(|value| self.forget(value));
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.forget(item)),
            _ => {}
        }
    }

    fn named(&mut self, object: &mut Value) {
        object["metadata"]["name"] = json!("o");
        object["metadata"]["namespace"] = json!("n");
    }

    pub fn canonical(&self, mut object: Value) -> Value {
        let unknown = schema::decode(self.schema, self.ty, &mut object).unwrap_or_else(|why| panic!("{why}: {object}"));
        assert!(unknown.is_empty(), "{unknown:?} in {object}");
        object
    }

    fn structure(&mut self, id: TypeId, depth: usize) -> Value {
        let schema = self.schema;
        let def = schema.get(id);
        let meta = def.go == "ObjectMeta";
        let percent = (400 / def.fields.len().max(1)).clamp(8, 70);
        let mut map = Map::new();
        for field in &def.fields {
            if field.ty == Type::FieldsV1 || (meta && !METADATA.contains(&field.name)) {
                continue;
            }
            let wanted = if depth > DEEPEST { field.required } else { field.required || self.dice.chance(percent) || depth == 0 };
            if wanted && let Some(value) = self.field(field, depth + 1) {
                map.insert(field.name.to_owned(), value);
            }
        }
        Value::Object(map)
    }

    fn field(&mut self, field: &Field, depth: usize) -> Option<Value> {
        let Type::List(element) = &field.ty else { return self.value(&field.ty, depth) };
        let count = if depth > DEEPEST { 0 } else { self.dice.below(4) };
        let mut items = (0..count).map(|_| self.value(element, depth)).collect::<Option<Vec<_>>>()?;
        self.tell_apart(field, element, &mut items);
        Some(Value::Array(items))
    }

    /// Gives items their keys, and takes those away that a list cannot have twice.
    fn tell_apart(&mut self, field: &Field, element: &Type, items: &mut Vec<Value>) {
        let mut keys: Vec<&str> = if let ListKind::Map(keys) = &field.list { keys.clone() } else { Vec::new() };
        keys.extend(field.patch.merge_key.filter(|key| !keys.contains(key)));
        let set = field.list == ListKind::Set || field.patch.merge;
        let Type::Struct(id) = element else {
            if set {
                let mut seen = Vec::new();
                items.retain(|item| {
                    !seen.contains(item) && {
                        seen.push(item.clone());
                        true
                    }
                });
            }
            return;
        };
        let def = self.schema.get(*id);
        for key in &keys {
            let Some(field) = def.field(key) else { continue };
            for item in items.iter_mut().filter(|item| item[*key].is_null()) {
                // A key with a default may be left out.
                if field.default.is_none() || self.dice.chance(50) {
                    item[*key] = self.value(&field.ty, DEEPEST).unwrap_or_default();
                }
            }
        }
        // Strategic merges tell items apart by one key, applies by all of them.
        let mut seen: Vec<Value> = Vec::new();
        let first = field.patch.merge_key.map_or_else(|| keys.clone(), |key| vec![key]);
        items.retain(|item| {
            let key = Value::Array(first.iter().map(|key| item[*key].clone()).collect());
            first.is_empty()
                || (!seen.contains(&key) && {
                    seen.push(key);
                    true
                })
        });
    }

    fn value(&mut self, ty: &Type, depth: usize) -> Option<Value> {
        let dice = &mut *self.dice;
        Some(match ty {
            Type::Bool => json!(dice.chance(50)),
            Type::Int32 | Type::Int64 => json!(dice.below(4) + 1),
            Type::Float64 => json!(0.5),
            Type::String => json!(dice.pick(WORDS)),
            Type::Bytes => json!(dice.pick(&["YQ==", "Yg=="])),
            Type::Quantity => json!(dice.pick(&["1", "100m", "1Gi", "0.5", "2e3", "1500Mi"])),
            Type::IntOrString => dice.pick(&[json!(1), json!(2), json!("a"), json!("50%")]).clone(),
            Type::Time => json!(dice.pick(&["2026-01-01T00:00:00Z", "2026-02-02T00:00:00Z"])),
            Type::MicroTime => json!(dice.pick(&["2026-01-01T00:00:00.000000Z", "2026-02-02T00:00:00.123456Z"])),
            Type::Duration => json!("1m0s"),
            Type::RawExtension => json!({"apiVersion": "v1", "kind": "X", "a": dice.pick(WORDS)}),
            Type::FieldsV1 | Type::Any | Type::Json | Type::SchemaOr(..) => return None,
            Type::Struct(id) => self.structure(*id, depth),
            Type::List(element) => {
                let count = self.dice.below(3);
                Value::Array((0..count).map(|_| self.value(element, depth)).collect::<Option<_>>()?)
            }
            Type::Map(element) => {
                let count = self.dice.below(3);
                let mut map = Map::new();
                for _ in 0..count {
                    let key = (*self.dice.pick(WORDS)).to_owned();
                    map.insert(key, self.value(element, depth)?);
                }
                Value::Object(map)
            }
        })
    }

    fn change_struct(&mut self, id: TypeId, value: &mut Value, depth: usize) {
        let schema = self.schema;
        let def = schema.get(id);
        let Some(map) = value.as_object_mut() else { return };
        for field in &def.fields {
            if field.ty == Type::FieldsV1 || (def.go == "ObjectMeta" && !METADATA.contains(&field.name)) {
                continue;
            }
            match map.get_mut(field.name) {
                Some(_) if !field.required && depth > 0 && self.dice.chance(10) => {
                    map.remove(field.name);
                }
                Some(value) => self.change_field(field, value, depth + 1),
                None if depth < DEEPEST && self.dice.chance(100 / def.fields.len().max(1)) => {
                    map.extend(self.field(field, depth + 1).map(|value| (field.name.to_owned(), value)));
                }
                None => {}
            }
        }
    }

    fn change_field(&mut self, field: &Field, value: &mut Value, depth: usize) {
        match (&field.ty, value) {
            (Type::List(element), Value::Array(items)) => {
                items.retain(|_| !self.dice.chance(15));
                if let Type::Struct(id) = &**element {
                    items.iter_mut().for_each(|item| self.change_struct(*id, item, depth));
                }
                if depth < DEEPEST && self.dice.chance(25) {
                    items.extend(self.value(element, depth));
                }
                if self.dice.chance(15) {
                    self.dice.shuffle(items);
                }
                self.tell_apart(field, element, items);
            }
            (Type::Struct(id), value) => self.change_struct(*id, value, depth),
            (Type::Map(element), Value::Object(map)) => {
                map.retain(|_, _| !self.dice.chance(15));
                if self.dice.chance(30) {
                    let key = (*self.dice.pick(WORDS)).to_owned();
                    map.extend(self.value(element, depth).map(|value| (key, value)));
                }
            }
            (ty, value) if self.dice.chance(20) => *value = self.value(ty, depth).unwrap_or_default(),
            _ => {}
        }
    }

    /// A strategic merge patch with directives, such as people rarely write and generators do.
    pub fn patch(&mut self, original: &Value) -> Value {
        let changed = self.changed(original);
        let mut patch = self.part(&changed);
        self.direct_struct(self.ty, &mut patch, 0);
        patch
    }

    fn direct_struct(&mut self, id: TypeId, value: &mut Value, depth: usize) {
        let schema = self.schema;
        let def = schema.get(id);
        let Some(map) = value.as_object_mut() else { return };
        for field in &def.fields {
            let Some(value) = map.get_mut(field.name) else { continue };
            match (&field.ty, value) {
                (_, value) if depth > 0 && self.dice.chance(6) => *value = Value::Null,
                (Type::Struct(id), value) => {
                    self.direct_struct(*id, value, depth + 1);
                    if depth > 0 && field.patch.retain_keys && self.dice.chance(50) {
                        let keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
                        value["$retainKeys"] = json!(keys);
                    } else if depth > 0 && self.dice.chance(8) {
                        value["$patch"] = json!(self.dice.pick(&["replace", "delete", "merge"]));
                    }
                }
                (Type::List(element), Value::Array(items)) => {
                    let extra = self.direct_list(field, element, items, depth);
                    map.extend(extra);
                }
                _ => {}
            }
        }
    }

    /// Directives in a list, and those that stand beside it.
    fn direct_list(&mut self, field: &Field, element: &Type, items: &mut Vec<Value>, depth: usize) -> Option<(String, Value)> {
        if let Type::Struct(id) = element {
            items.iter_mut().for_each(|item| self.direct_struct(*id, item, depth + 1));
        }
        if !field.patch.merge {
            return None;
        }
        let order: Vec<Value> = match (element, field.patch.merge_key) {
            (Type::Struct(_), Some(key)) => {
                let order = items.iter().map(|item| json!({key: item[key]})).collect();
                if self.dice.chance(20) {
                    let word = WORDS.iter().map(|word| json!(word)).find(|word| items.iter().all(|item| item[key] != *word));
                    items.extend(word.map(|word| json!({"$patch": "delete", key: word})));
                } else if self.dice.chance(8) {
                    items.push(json!({"$patch": "replace"}));
                }
                order
            }
            (Type::Struct(_), None) => return None,
            _ if self.dice.chance(30) => {
                // To add and to delete the same is a matter of chance for upstream, which goes through a map.
                let word = WORDS.iter().find(|word| !items.contains(&json!(word)))?;
                return Some((format!("$deleteFromPrimitiveList/{}", field.name), json!([word])));
            }
            _ => items.clone(),
        };
        self.dice.chance(30).then(|| (format!("$setElementOrder/{}", field.name), Value::Array(order)))
    }
}
