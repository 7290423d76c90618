//! What mutating policies make of an object. Pure.

use apimachinery::apply::{self, Types};
use apimachinery::meta;
use apimachinery::patch::{self, JsonPatchError};
use cel::NoJson;
use serde_json::Value;

/// What an expression made, of a form; otherwise `wrong` says what it should be.
fn of_form(made: &cel::Value<'_>, has_form: fn(&Value) -> bool, wrong: &str) -> Result<Value, String> {
    match made.to_json() {
        Ok(json) if has_form(&json) => Ok(json),
        Err(NoJson::TooLarge) => Err(NoJson::TooLarge.to_string()),
        Ok(_) | Err(NoJson::Form) => Err(wrong.to_owned()),
    }
}

/// The object with a configuration laid over it.
pub(super) fn apply(types: Types<'_>, object: &Value, made: &cel::Value<'_>) -> Result<Value, String> {
    let mut configuration = of_form(made, Value::is_object, "unsupported return type from ApplyConfiguration expression")?;
    meta::set_type(&mut configuration, meta::api_version(object), meta::kind(object));
    apply::overlay(types, object, &configuration).map_err(|error| format!("error applying patch: {error}"))
}

/// The patched object; none when a test of the patch fails, which then changes nothing.
pub(super) fn json_patch(object: &Value, made: &cel::Value<'_>) -> Result<Option<Value>, String> {
    let wrong = "type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch";
    let operations = of_form(made, Value::is_array, wrong)?;
    match patch::apply_json(object, &operations) {
        Ok(patched) => Ok(Some(patched)),
        Err(JsonPatchError::TestFailed(_)) => Ok(None),
        Err(error) => Err(format!("JSON Patch: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schema::Schema;
    use serde_json::json;

    /// What an expression makes of a Deployment of one container `a` and one label `x`.
    #[track_caller]
    fn check(expression: &str, pointer: &str, expected: Result<Value, &str>) {
        let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "labels": {"x": "1"}},
            "spec": {"replicas": 1, "template": {"spec": {"containers": [{"name": "a", "image": "i"}]}}}});
        let program = cel::Program::compile(expression, &["object"]).unwrap_or_else(|error| panic!("{expression}: {error}"));
        let variables = [("object", cel::Value::of(&object, None))];
        let made = program.evaluate(&variables, &mut cel::Budget::new(1_000_000)).unwrap_or(cel::Value::Null);
        let got = if expression.starts_with('[') {
            json_patch(&object, &made).map(|patched| patched.unwrap_or_else(|| object.clone()))
        } else {
            let schema = Schema::builtin();
            let Some(ty) = schema.kind("apps", "v1", "Deployment") else { panic!("Deployments are in the schema") };
            apply(Types::Builtin(schema, ty), &object, &made)
        };
        let got = got.map(|object| object.pointer(pointer).cloned().unwrap_or_default());
        assert_eq!(got, expected.map_err(str::to_owned), "{expression}");
    }

    /// Cases of upstream's `TestJSONPatch`.
    #[test]
    fn json_patches() {
        let replace = "JSONPatch{op: 'replace', path: '/spec/replicas', value: 3}";
        check(
            &format!("[JSONPatch{{op: 'test', path: '/spec/replicas', value: 100}}, {replace}]"),
            "/spec/replicas",
            Ok(json!(1)),
        );
        check(&format!("[JSONPatch{{op: 'test', path: '/spec/replicas', value: 1}}, {replace}]"), "/spec/replicas", Ok(json!(3)));
        check("[JSONPatch{op: 'remove', path: '/spec/replicas'}]", "/spec/replicas", Ok(Value::Null));
        check(
            "[JSONPatch{op: 'copy', from: '/metadata/labels/x', path: '/metadata/labels/y'}]",
            "/metadata/labels",
            Ok(json!({"x": "1", "y": "1"})),
        );
        check("[JSONPatch{op: 'add', path: '/metadata/labels', value: {'y': '2'}}]", "/metadata/labels", Ok(json!({"y": "2"})));
        check(
            "[JSONPatch{op: 'add', path: '/spec/template/spec/containers/-', value: Object.spec.template.spec.containers{name: 'b'}}]",
            "/spec/template/spec/containers/1/name",
            Ok(json!("b")),
        );
        check(
            "[1]",
            "",
            Err("JSON Patch: error decoding patch: json: cannot unmarshal number into Go value of type jsonpatch.Operation"),
        );
    }

    /// Cases of upstream's `TestApplyConfiguration`.
    #[test]
    fn configurations() {
        check("Object{spec: Object.spec{replicas: object.spec.replicas + 9}}", "/spec/replicas", Ok(json!(10)));
        check("Object{metadata: Object.metadata{labels: {'y': '2'}}}", "/metadata/labels", Ok(json!({"x": "1", "y": "2"})));
        let containers = |list: &str| {
            format!(
                "Object{{spec: Object.spec{{template: Object.spec.template{{spec: Object.spec.template.spec{{containers: {list}}}}}}}}}"
            )
        };
        let all = "/spec/template/spec/containers";
        let own = "Object.spec.template.spec.containers";
        check(
            &containers(&format!("[{own}{{name: 'a', workingDir: '/'}}]")),
            all,
            Ok(json!([{"name": "a", "image": "i", "workingDir": "/"}])),
        );
        check(
            &containers(&format!("[{own}{{name: 'b', image: 'j'}}]")),
            all,
            Ok(json!([{"name": "a", "image": "i"}, {"name": "b", "image": "j"}])),
        );
        check(
            &containers(&format!("[{own}{{name: 'a', args: ['b']}}]")),
            "",
            Err(
                "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.template.spec.containers[0].args",
            ),
        );
        check(
            "Object{spec: Object.spec{other: 1}}",
            "",
            Err(
                "error applying patch: failed to convert patch object to typed object: .spec.other: field not declared in schema",
            ),
        );
        check("1", "", Err("unsupported return type from ApplyConfiguration expression"));
    }
}
