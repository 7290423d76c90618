//! Job: pods that run until enough of them have succeeded.

mod indexes;
mod policies;
mod spec;
mod status;
#[cfg(test)]
mod tests;
mod update;

use apimachinery::field::{Error, Errors, Path};
use apimachinery::labels::Selector;
use apimachinery::{meta, names, table};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::columns::Column;
use crate::core::pod;
use crate::def::{Dependents, KindDef};
use crate::sub::Sub;
use crate::typed::Kind;
use crate::util::{child_object, each, integer, or_none, set_default, set_zero};
use crate::workload::{self, each_container, format_selector};

pub(super) use spec::validate_template_spec;

/// The label that names the job of a pod, and the name that it had before labels of Kubernetes had a prefix.
const NAME_LABELS: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];
/// The label with the job's uid, likewise.
const UID_LABELS: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];

/// Retries of an indexed job whose indexes have limits of their own.
const NO_LIMIT: i32 = i32::MAX;

/// From this many completions on, and this many pods side by side, the list of completed indexes may grow too long.
const MANY_COMPLETIONS: i32 = 100_000;
const MANY_PODS: i32 = 10_000;

/// The API of version 1 is older than garbage collection.
const ORPHANS: &str = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning";

/// Defaults of jobs and of templates of jobs. What else a job gets, it gets when it is made of its template.
pub(super) fn default_template_spec(spec: &mut Value) {
    if let Some(policy) = spec.get_mut("podFailurePolicy") {
        for rule in each(policy, "rules") {
            each(rule, "onPodConditions").for_each(|pattern| set_zero(pattern, "status", "True"));
        }
    }
    pod::default_template(child_object(spec, "template"));
}

impl Kind for Job {
    const DEF: KindDef = KindDef::new("batch", "v1", "Job", "jobs", "job")
        .in_all()
        .generation()
        .dependents(Dependents::Stay)
        .silent_deletion(ORPHANS)
        .subresources(&[Sub::STATUS]);
    const SELECTABLE: &'static [&'static str] = &["status.successful"];

    fn field(object: &Value, _name: &'static str) -> String {
        integer(object, "/status/succeeded").unwrap_or(0).to_string()
    }

    fn apply_defaults(object: &mut Value) {
        default_labels(object);
        let spec = child_object(object, "spec");
        if ["completions", "parallelism"].iter().all(|key| spec.get(key).is_none_or(Value::is_null)) {
            set_default(spec, "completions", 1);
        }
        set_default(spec, "parallelism", 1);
        let per_index = spec.get("backoffLimitPerIndex").is_some_and(|limit| !limit.is_null());
        set_default(spec, "backoffLimit", if per_index { NO_LIMIT } else { 6 });
        set_default(spec, "completionMode", "NonIndexed");
        set_default(spec, "suspend", false);
        let policy = spec.get("podFailurePolicy").is_some_and(|policy| !policy.is_null());
        set_default(spec, "podReplacementPolicy", if policy { "Failed" } else { "TerminatingOrFailed" });
        set_default(spec, "manualSelector", false);
        default_template_spec(spec);
    }

    /// The pods of a job are those with its uid, unless its author selects them.
    fn prepare_create(object: &mut Value) {
        if object.pointer("/spec/manualSelector") != Some(&Value::Bool(true)) {
            generate_selector(object);
        }
    }

    fn validate_create(&self, errors: &mut Errors) {
        validate(self, true, errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let old_spec = old.spec.clone().unwrap_or_default();
        let had = |key: &str| labels(&old_spec.template).is_some_and(|labels| labels.contains_key(key));
        // Jobs from before there were labels with a prefix do not get them later.
        validate(self, had(NAME_LABELS[1]) && had(UID_LABELS[1]), errors);
        update::validate(self, old, errors);
    }

    fn validate_sub(&self, sub: &str, old: &Self, errors: &mut Errors) {
        if sub == "status" {
            status::validate(self, old, errors);
        }
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<_> = workload::name_warning(&self.metadata).into_iter().collect();
        warnings.extend(self.spec.iter().flat_map(|spec| spec_warnings(spec, None, &Path::new("spec"))));
        warnings
    }

    fn warnings_on_update(&self, old: &Self) -> Vec<String> {
        match &self.spec {
            Some(spec) if self.spec != old.spec => spec_warnings(spec, old.spec.as_ref(), &Path::new("spec")),
            _ => Vec::new(),
        }
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            &[
                Column::new("Status", "Status of the job.", |job, _| state(job).into()),
                Column::new(
                    "Completions",
                    "The number of pods which reached phase Succeeded. The value increases monotonically for a given spec. However, it may decrease in reaction to scale down of elastic indexed jobs.",
                    |job, _| completions(job).into(),
                ),
                Column::new("Duration", "Time required to complete the job.", |job, now| duration(job, now).into()),
                Column::wide("Containers", "Names of each container in the template.", |job, _| {
                    each_container(job.spec.as_ref().map(|spec| &spec.template), |container| container.name.clone())
                }),
                Column::wide("Images", "Images referenced by each container in the template.", |job, _| {
                    each_container(job.spec.as_ref().map(|spec| &spec.template), |c| c.image.clone().unwrap_or_default())
                }),
                Column::wide(
                    "Selector",
                    "A label query over pods that should match the pod count. Normally, the system sets this field for you. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
                    |job, _| or_none(format_selector(job.spec.as_ref().and_then(|spec| spec.selector.as_ref()))),
                ),
            ]
        }
    }
}

/// A job without labels gets those of its pods.
fn default_labels(object: &mut Value) {
    let own = object.pointer("/metadata/labels").and_then(Value::as_object).is_some_and(|labels| !labels.is_empty());
    let template = object.pointer("/spec/template/metadata/labels").filter(|labels| labels.is_object()).cloned();
    if let Some(labels) = template.filter(|_| !own) {
        child_object(object, "metadata")["labels"] = labels;
    }
}

fn generate_selector(object: &mut Value) {
    let (name, uid) = (meta::name(object).to_owned(), meta::uid(object).to_owned());
    let spec = child_object(object, "spec");
    let labels = child_object(child_object(child_object(spec, "template"), "metadata"), "labels");
    NAME_LABELS.iter().for_each(|key| set_default(labels, key, name.as_str()));
    UID_LABELS.iter().for_each(|key| set_default(labels, key, uid.as_str()));
    set_default(child_object(child_object(spec, "selector"), "matchLabels"), UID_LABELS[1], uid);
}

fn labels(template: &PodTemplateSpec) -> Option<&std::collections::BTreeMap<String, String>> {
    template.metadata.as_ref().and_then(|metadata| metadata.labels.as_ref())
}

fn validate(job: &Job, prefixed: bool, errors: &mut Errors) {
    let none = JobSpec::default();
    let (spec, path) = (job.spec.as_ref().unwrap_or(&none), Path::new("spec"));
    validate_generated(job, spec, prefixed, errors);
    spec::validate(spec, &path, errors);
    spec::validate_selector(spec, &path, errors);
    let name = job.metadata.name.as_deref().unwrap_or_default();
    let indexed = spec::is_indexed(spec);
    if let Some(count) = spec.completions.filter(|count| indexed && *count > 0) {
        // Pods of an indexed job have its name and their index as host name.
        let host = format!("{name}-{}", count - 1);
        if !names::dns1123_label(&host).is_empty() {
            let detail = format!("will not able to create pod with invalid DNS label: {host}");
            errors.push(Error::invalid(&Path::new("metadata").child("name"), name, detail));
        }
    }
}

/// What the server generates stands where it should, whatever else the author wrote.
fn validate_generated(job: &Job, spec: &JobSpec, prefixed: bool, errors: &mut Errors) {
    let Some(selector) = spec.selector.as_ref().filter(|_| spec.manual_selector != Some(true)) else { return };
    let (name, uid) = (job.metadata.name.as_deref().unwrap_or_default(), job.metadata.uid.as_deref().unwrap_or_default());
    if uid.is_empty() {
        errors.push(Error::required(&Path::new("metadata").child("uid"), ""));
    }
    let path = Path::new("spec").child("template.metadata.labels");
    let mut expected = std::collections::BTreeMap::new();
    for index in 0..=usize::from(prefixed) {
        for (key, value) in [(UID_LABELS[index], uid), (NAME_LABELS[index], name)] {
            expected.insert(key.to_owned(), value.to_owned());
            let (detail, path) = (format!("must be '{value}'"), path.key(key));
            match labels(&spec.template).and_then(|labels| labels.get(key)) {
                None => errors.push(Error::required(&path, detail)),
                Some(actual) if actual != value => {
                    errors.push(Error::invalid(&path, json!(labels(&spec.template)), detail));
                }
                Some(_) => {}
            }
        }
    }
    if Selector::from_label_selector(Some(selector)).is_ok_and(|parsed| !parsed.matches(&Some(&expected))) {
        errors.push(Error::invalid(&Path::new("spec").child("selector"), json!(selector), "`selector` not auto-generated"));
    }
}

/// What the author of a job at `path` should know.
pub(super) fn spec_warnings(spec: &JobSpec, old: Option<&JobSpec>, path: &Path) -> Vec<String> {
    let mut warnings = Vec::new();
    let many = spec.completions.unwrap_or(0) > MANY_COMPLETIONS && spec.parallelism.unwrap_or(0) > MANY_PODS;
    if spec::is_indexed(spec) && many {
        warnings.push(format!("{path}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail"));
    }
    if old.is_none_or(|old| old.template != spec.template) {
        warnings.extend(pod::of_template(&spec.template, &path.child("template")));
    }
    warnings
}

/// The one word for how a job stands.
fn state(job: &Job) -> &'static str {
    let is = |kind: &str| status::is_true(job, kind);
    match () {
        () if is("Complete") => "Complete",
        () if is("Failed") => "Failed",
        () if job.metadata.deletion_timestamp.is_some() => "Terminating",
        () if is("Suspended") => "Suspended",
        () if is("FailureTarget") => "FailureTarget",
        () if is("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

fn completions(job: &Job) -> String {
    let succeeded = job.status.as_ref().and_then(|status| status.succeeded).unwrap_or(0);
    let (wanted, side_by_side) = job.spec.as_ref().map_or((None, None), |spec| (spec.completions, spec.parallelism));
    match (wanted, side_by_side) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, Some(pods)) if pods > 1 => format!("{succeeded}/1 of {pods}"),
        (None, _) => format!("{succeeded}/1"),
    }
}

fn duration(job: &Job, now: Timestamp) -> String {
    let Some(status) = &job.status else { return String::new() };
    let second = |time: &Option<Time>| time.as_ref().map(|time| time.0.as_second());
    let Some(start) = second(&status.start_time) else { return String::new() };
    table::human_duration(second(&status.completion_time).unwrap_or(now.as_second()) - start)
}
