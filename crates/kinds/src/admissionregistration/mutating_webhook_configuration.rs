//! MutatingWebhookConfiguration.

use apimachinery::field::Errors;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use serde_json::Value;

use super::webhook;
use crate::columns::Column;
use crate::def::KindDef;
use crate::rules::list;
use crate::typed::Kind;
use crate::util::{each, set_default};

impl Kind for MutatingWebhookConfiguration {
    const DEF: KindDef =
        super::def("MutatingWebhookConfiguration", "mutatingwebhookconfigurations", "mutatingwebhookconfiguration");

    fn apply_defaults(object: &mut Value) {
        webhook::apply_defaults(object);
        each(object, "webhooks").for_each(|hook| set_default(hook, "reinvocationPolicy", "Never"));
    }

    fn validate(&self, errors: &mut Errors) {
        webhook::validate(list(&self.webhooks), errors);
    }

    fn columns() -> &'static [Column<Self>] {
        const { &[webhook::column(|configuration: &Self, _| list(&configuration.webhooks).len().into())] }
    }
}
