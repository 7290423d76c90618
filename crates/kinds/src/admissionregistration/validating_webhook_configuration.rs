//! ValidatingWebhookConfiguration.

use apimachinery::field::Errors;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use serde_json::Value;

use super::webhook;
use crate::columns::Column;
use crate::def::KindDef;
use crate::rules::list;
use crate::typed::Kind;

impl Kind for ValidatingWebhookConfiguration {
    const DEF: KindDef =
        super::def("ValidatingWebhookConfiguration", "validatingwebhookconfigurations", "validatingwebhookconfiguration");

    fn apply_defaults(object: &mut Value) {
        webhook::apply_defaults(object);
    }

    fn validate(&self, errors: &mut Errors) {
        webhook::validate(list(&self.webhooks), errors);
    }

    fn columns() -> &'static [Column<Self>] {
        const { &[webhook::column(|configuration: &Self, _| list(&configuration.webhooks).len().into())] }
    }
}
