//! HorizontalPodAutoscaler in autoscaling/v1: the objects of autoscaling/v2, as far as v1 can say them. Rules name fields as v2 does,
//! as upstream's do.

use apimachinery::field::Errors;
use apimachinery::meta;
use apimachinery::table::ColumnDefinition;
use jiff::Timestamp;
use k8s_openapi::Resource;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use serde_json::Value;

use super::horizontal_pod_autoscaler::{from_v1, to_v1};
use crate::conversion::Conversion;
use crate::def::{KindDef, Names};
use crate::strategy::{Fields, Strategy};
use crate::typed::{Kind, Typed};
use crate::util::{child_object, set_default};

/// `autoscaling/v1 HorizontalPodAutoscaler`.
pub(crate) struct HorizontalPodAutoscalerV1;

static STORED: Typed<HorizontalPodAutoscaler> = Typed::new();

static CONVERSION: Conversion = Conversion {
    stored: (
        <HorizontalPodAutoscaler as Resource>::GROUP,
        <HorizontalPodAutoscaler as Resource>::VERSION,
        <HorizontalPodAutoscaler as Resource>::KIND,
    ),
    from_stored: |object| *object = to_v1(object),
    to_stored: |object| *object = stored(object),
    stored_field: str::to_owned,
};

/// The object as it is stored, with the defaults of what v1 cannot say.
fn stored(object: &Value) -> Value {
    let mut stored = from_v1(object);
    meta::set_type(&mut stored, &HorizontalPodAutoscaler::DEF.api_version(), &HorizontalPodAutoscaler::DEF.kind);
    STORED.apply_defaults(&mut stored);
    stored
}

impl Strategy for HorizontalPodAutoscalerV1 {
    fn def(&self) -> &KindDef {
        const { &HorizontalPodAutoscaler::DEF.version("v1") }
    }

    fn conversion(&self) -> Option<&'static Conversion> {
        Some(&CONVERSION)
    }

    fn apply_defaults(&self, object: &mut Value) {
        set_default(child_object(object, "spec"), "minReplicas", 1);
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = serde_json::json!({"currentReplicas": 0, "desiredReplicas": 0});
    }

    fn prepare_update(&self, _: &mut Value, _: &Value) {}

    fn validate(&self, object: &Value, warnings: &mut Vec<String>) -> Errors {
        STORED.validate(&stored(object), warnings)
    }

    fn validate_update(&self, object: &Value, old: &Value, warnings: &mut Vec<String>) -> Errors {
        STORED.validate_update(&stored(object), &stored(old), warnings)
    }

    fn validate_sub(&self, sub: &str, object: &Value, old: &Value, warnings: &mut Vec<String>) -> Errors {
        STORED.validate_sub(sub, &stored(object), &stored(old), warnings)
    }

    fn selectable(&self) -> &Names {
        STORED.selectable()
    }

    fn fields(&self, object: &Value) -> Fields {
        STORED.fields(&stored(object))
    }

    fn columns(&self) -> Vec<ColumnDefinition> {
        STORED.columns()
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        STORED.row(&stored(object), now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rules_are_those_of_the_stored_kind() {
        let scaler = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"},
            "spec": {"maxReplicas": 1, "targetCPUUtilizationPercentage": 0, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"}}});
        let errors = HorizontalPodAutoscalerV1.validate(&scaler, &mut Vec::new());
        let expected = "spec.metrics[0].resource.target.averageUtilization: Invalid value: 0: must be greater than 0";
        assert_eq!(errors.to_string(), expected);
        let mut bare = scaler.clone();
        bare["spec"] = json!({"maxReplicas": 1, "scaleTargetRef": {"kind": "Deployment", "name": "x"}});
        let errors = HorizontalPodAutoscalerV1.validate(&bare, &mut Vec::new());
        let expected = "spec.scaleTargetRef.apiVersion: Invalid value: \"\": apiVersion must specify API group";
        assert_eq!(errors.to_string(), expected);
        assert!(HorizontalPodAutoscalerV1.validate_update(&bare, &bare, &mut Vec::new()).is_empty());
        assert_eq!(
            HorizontalPodAutoscalerV1.row(&scaler, Timestamp::UNIX_EPOCH)[1..3],
            [json!("Deployment/x"), json!("cpu: <unknown>/0%")]
        );
    }
}
