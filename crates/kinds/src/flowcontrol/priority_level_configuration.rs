//! PriorityLevelConfiguration (upstream: `pkg/apis/flowcontrol/validation`).

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::api::flowcontrol::v1::{
    ExemptPriorityLevelConfiguration, LimitResponse, LimitedPriorityLevelConfiguration, PriorityLevelConfiguration,
    PriorityLevelConfigurationSpec, QueuingConfiguration,
};
use serde_json::{Value, json};

use super::bootstrap;
use crate::columns::Column;
use crate::def::KindDef;
use crate::rules::{list, text};
use crate::sub::Sub;
use crate::typed::Kind;
use crate::util::{set_default, set_zero};

const EXEMPT_NAME: &str = "exempt";
const EXEMPT: &str = "Exempt";
const LIMITED: &str = "Limited";
const MAX_QUEUES: i32 = 10_000_000;
/// Bits of a hash that choosing queues may use up.
const MAX_HASH_BITS: u32 = 60;

impl Kind for PriorityLevelConfiguration {
    const DEF: KindDef = KindDef::new(
        super::GROUP,
        "v1",
        "PriorityLevelConfiguration",
        "prioritylevelconfigurations",
        "prioritylevelconfiguration",
    )
    .cluster()
    .generation()
    .status_keeps_metadata()
    .subresources(&[Sub::STATUS]);

    fn apply_defaults(object: &mut Value) {
        for (level, shares) in [("/spec/exempt", 0), ("/spec/limited", 30)] {
            if let Some(level) = object.pointer_mut(level).filter(|level| level.is_object()) {
                set_default(level, "nominalConcurrencyShares", shares);
                set_default(level, "lendablePercent", 0);
            }
        }
        let queuing = object.pointer_mut("/spec/limited/limitResponse/queuing");
        if let Some(queuing) = queuing.filter(|queuing| queuing.is_object()) {
            set_zero(queuing, "queues", 64);
            set_zero(queuing, "handSize", 8);
            set_zero(queuing, "queueLengthLimit", 50);
        }
    }

    fn validate(&self, errors: &mut Errors) {
        let (path, none) = (Path::new("spec"), PriorityLevelConfigurationSpec::default());
        let name = self.metadata.name.as_deref().unwrap_or_default();
        let spec = self.spec.as_ref().unwrap_or(&none);
        validate_spec(name, spec, &path, errors);
        let fixed = bootstrap::mandatory("prioritylevelconfigurations", name).map(codec::from_value);
        if let Some(Ok(fixed)) = fixed {
            let mut fixed: PriorityLevelConfigurationSpec = fixed;
            // How large the exempt level is, is for the administrator to say.
            if name == EXEMPT_NAME {
                fixed.exempt = spec.exempt.clone();
            }
            if fixed != *spec {
                errors.push(Error::invalid(&path, json!(spec), format!("spec of '{name}' must equal the fixed value")));
            }
        }
        validate_status(self, errors);
    }

    fn validate_sub(&self, _sub: &str, _old: &Self, errors: &mut Errors) {
        validate_status(self, errors);
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            &[
                Column::new(
                    "Type",
                    "`type` indicates whether this priority level is subject to limitation on request execution.",
                    |level, _| level.spec.as_ref().map(|spec| spec.type_.clone()).into(),
                ),
                Column::new(
                    "NominalConcurrencyShares",
                    "`nominalConcurrencyShares` (NCS) contributes to the computation of the NominalConcurrencyLimit (NominalCL) of this level.",
                    |level, _| number(limited(level).and_then(|limited| limited.nominal_concurrency_shares)),
                ),
                Column::new("Queues", "`queues` is the number of queues for this priority level.", |level, _| {
                    number(queuing(level).and_then(|queuing| queuing.queues))
                }),
                Column::new(
                    "HandSize",
                    "`handSize` is a small positive number that configures the shuffle sharding of requests into queues.",
                    |level, _| number(queuing(level).and_then(|queuing| queuing.hand_size)),
                ),
                Column::new(
                    "QueueLengthLimit",
                    "`queueLengthLimit` is the maximum number of requests allowed to be waiting in a given queue of this priority level at a time; excess requests are rejected.",
                    |level, _| number(queuing(level).and_then(|queuing| queuing.queue_length_limit)),
                ),
            ]
        }
    }
}

fn limited(level: &PriorityLevelConfiguration) -> Option<&LimitedPriorityLevelConfiguration> {
    level.spec.as_ref()?.limited.as_ref()
}

fn queuing(level: &PriorityLevelConfiguration) -> Option<&QueuingConfiguration> {
    limited(level)?.limit_response.as_ref()?.queuing.as_ref()
}

fn number(value: Option<i32>) -> Value {
    value.map_or_else(|| "<none>".into(), Value::from)
}

fn validate_status(level: &PriorityLevelConfiguration, errors: &mut Errors) {
    let conditions = level.status.as_ref().map(|status| list(&status.conditions)).unwrap_or_default();
    super::validate_conditions(conditions.iter().map(|condition| text(&condition.type_)), errors);
}

fn validate_spec(name: &str, spec: &PriorityLevelConfigurationSpec, path: &Path, errors: &mut Errors) {
    let (kind, limited) = (spec.type_.as_str(), path.child("limited"));
    if (name == EXEMPT_NAME) != (kind == EXEMPT) {
        let detail = "type must be 'Exempt' if and only if name is 'exempt'";
        errors.push(Error::invalid(&path.child("type"), kind, detail));
    }
    match kind {
        EXEMPT => {
            if spec.limited.is_some() {
                errors.push(Error::forbidden(&limited, "must be nil if the type is not Limited"));
            }
            if let Some(exempt) = &spec.exempt {
                validate_exempt(exempt, &path.child("exempt"), errors);
            }
        }
        LIMITED => {
            if spec.exempt.is_some() {
                errors.push(Error::forbidden(&path.child("exempt"), "must be nil if the type is Limited"));
            }
            match &spec.limited {
                Some(level) => validate_limited(level, &limited, errors),
                None => errors.push(Error::required(&limited, "must not be empty when type is Limited")),
            }
        }
        other => errors.push(Error::not_supported(&path.child("type"), other, &[EXEMPT, LIMITED])),
    }
}

fn validate_shares(shares: Option<i32>, lendable: Option<i32>, path: &Path, errors: &mut Errors) {
    if let Some(shares) = shares.filter(|shares| *shares < 0) {
        errors.push(Error::invalid(&path.child("nominalConcurrencyShares"), shares, "must be a non-negative integer"));
    }
    if let Some(percent) = lendable.filter(|percent| !(0..=100).contains(percent)) {
        errors.push(Error::invalid(&path.child("lendablePercent"), percent, "must be between 0 and 100, inclusive"));
    }
}

fn validate_exempt(level: &ExemptPriorityLevelConfiguration, path: &Path, errors: &mut Errors) {
    validate_shares(level.nominal_concurrency_shares, level.lendable_percent, path, errors);
}

fn validate_limited(level: &LimitedPriorityLevelConfiguration, path: &Path, errors: &mut Errors) {
    validate_shares(level.nominal_concurrency_shares, level.lendable_percent, path, errors);
    let none = LimitResponse::default();
    validate_response(level.limit_response.as_ref().unwrap_or(&none), &path.child("limitResponse"), errors);
    if let Some(percent) = level.borrowing_limit_percent.filter(|percent| *percent < 0) {
        let detail = "if specified, must be a non-negative integer";
        errors.push(Error::invalid(&path.child("borrowingLimitPercent"), percent, detail));
    }
}

fn validate_response(response: &LimitResponse, path: &Path, errors: &mut Errors) {
    let at = path.child("queuing");
    match (response.type_.as_str(), &response.queuing) {
        ("Reject", Some(_)) => {
            errors.push(Error::forbidden(&at, "must be nil if limited.limitResponse.type is not Limited"));
        }
        ("Reject", None) => {}
        ("Queue", None) => {
            errors.push(Error::required(&at, "must not be empty if limited.limitResponse.type is Limited"));
        }
        ("Queue", Some(queuing)) => validate_queuing(queuing, &at, errors),
        (other, _) => errors.push(Error::not_supported(&path.child("type"), other, &["Queue", "Reject"])),
    }
}

fn validate_queuing(queuing: &QueuingConfiguration, path: &Path, errors: &mut Errors) {
    let number = |value: Option<i32>| value.unwrap_or_default();
    let (queues, hand, limit) = (number(queuing.queues), number(queuing.hand_size), number(queuing.queue_length_limit));
    if limit <= 0 {
        errors.push(Error::invalid(&path.child("queueLengthLimit"), limit, "must be positive"));
    }
    if queues <= 0 {
        errors.push(Error::invalid(&path.child("queues"), queues, "must be positive"));
    } else if queues > MAX_QUEUES {
        errors.push(Error::invalid(&path.child("queues"), queues, format!("must not be greater than {MAX_QUEUES}")));
    }
    let at = path.child("handSize");
    if hand <= 0 {
        errors.push(Error::invalid(&at, hand, "must be positive"));
    } else if hand > queues {
        errors.push(Error::invalid(&at, hand, format!("should not be greater than queues ({queues})")));
    } else if (f64::from(queues).log2() * f64::from(hand)).ceil() > f64::from(MAX_HASH_BITS) {
        let detail =
            format!("required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {MAX_HASH_BITS}");
        errors.push(Error::invalid(&at, hand, detail));
    }
}
