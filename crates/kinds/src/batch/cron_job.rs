//! CronJob: jobs by the clock.

use apimachinery::field::{Error, Errors, Path};
use apimachinery::schedule::{self, Schedule};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, JobSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;

use super::job;
use crate::columns::Column;
use crate::def::KindDef;
use crate::rules::{self, text};
use crate::sub::Sub;
use crate::typed::Kind;
use crate::util::{age_of, child_object, or_none, set_default, set_zero};
use crate::workload::{self, each_container, format_selector};

const POLICIES: &[&str] = &["Allow", "Forbid", "Replace"];
/// Jobs have the name of their CronJob and the time, in eleven characters, and at most 63 in all.
const MAX_NAME: usize = 52;

impl Kind for CronJob {
    const DEF: KindDef = KindDef::new("batch", "v1", "CronJob", "cronjobs", "cronjob")
        .short(&["cj"])
        .in_all()
        .generation()
        .subresources(&[Sub::STATUS]);

    fn apply_defaults(object: &mut Value) {
        let spec = child_object(object, "spec");
        set_zero(spec, "concurrencyPolicy", "Allow");
        set_default(spec, "suspend", false);
        set_default(spec, "successfulJobsHistoryLimit", 3);
        set_default(spec, "failedJobsHistoryLimit", 1);
        job::default_template_spec(child_object(child_object(spec, "jobTemplate"), "spec"));
    }

    fn validate_create(&self, errors: &mut Errors) {
        validate(self, None, errors);
        let name = text(&self.metadata.name);
        if name.len() > MAX_NAME {
            let detail = format!("must be no more than {MAX_NAME} characters");
            errors.push(Error::invalid(&Path::new("metadata").child("name"), name, detail));
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        validate(self, Some(&old.spec), errors);
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<_> = workload::name_warning(&self.metadata).into_iter().collect();
        warnings.extend(template_warnings(self, None));
        warnings.extend(zone_warning(self));
        warnings
    }

    fn warnings_on_update(&self, old: &Self) -> Vec<String> {
        let mut warnings = if self.spec == old.spec { Vec::new() } else { template_warnings(self, job_of(old)) };
        warnings.extend(zone_warning(self));
        warnings
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            &[
                Column::new("Schedule", "The schedule in Cron format, see https://en.wikipedia.org/wiki/Cron.", |cron, _| {
                    cron.spec.schedule.as_str().into()
                }),
                Column::new("Timezone", TIME_ZONE, |cron, _| or_none(text(&cron.spec.time_zone))),
                Column::boolean(
                    "Suspend",
                    "This flag tells the controller to suspend subsequent executions, it does not apply to already started executions.  Defaults to false.",
                    |cron, _| match cron.spec.suspend {
                        None => "<unset>".into(),
                        Some(true) => "True".into(),
                        Some(false) => "False".into(),
                    },
                ),
                Column::integer("Active", "A list of pointers to currently running jobs.", |cron, _| {
                    cron.status.as_ref().map_or(0, |status| rules::list(&status.active).len()).into()
                }),
                Column::new(
                    "Last Schedule",
                    "Information when was the last time the job was successfully scheduled.",
                    |cron, now| {
                        let last = cron.status.as_ref().and_then(|status| status.last_schedule_time.as_ref());
                        last.map_or_else(|| "<none>".into(), |last| age_of(Some(last.0), now).into())
                    },
                ),
                Column::wide("Containers", "Names of each container in the template.", |cron, _| {
                    each_container(template_of(cron), |container| container.name.clone())
                }),
                Column::wide("Images", "Images referenced by each container in the template.", |cron, _| {
                    each_container(template_of(cron), |container| container.image.clone().unwrap_or_default())
                }),
                Column::wide(
                    "Selector",
                    "A label query over pods that should match the pod count. Normally, the system sets this field for you. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
                    |cron, _| or_none(format_selector(job_of(cron).and_then(|job| job.selector.as_ref()))),
                ),
            ]
        }
    }
}

const TIME_ZONE: &str = "The time zone name for the given schedule, see https://en.wikipedia.org/wiki/List_of_tz_database_time_zones. If not specified, this will default to the time zone of the kube-controller-manager process. The set of valid time zone names and the time zone offset is loaded from the system-wide time zone database by the API server during CronJob validation and the controller manager during execution. If no system-wide time zone database can be found a bundled version of the database is used instead. If the time zone name becomes invalid during the lifetime of a CronJob or due to a change in host configuration, the controller will stop creating new new Jobs and will create a system event with the reason UnknownTimeZone. More information can be found in https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/#time-zones";

fn job_of(cron: &CronJob) -> Option<&JobSpec> {
    cron.spec.job_template.spec.as_ref()
}

fn template_of(cron: &CronJob) -> Option<&PodTemplateSpec> {
    job_of(cron).map(|job| &job.template)
}

fn template_warnings(cron: &CronJob, old: Option<&JobSpec>) -> Vec<String> {
    job_of(cron).map(|job| job::spec_warnings(job, old, &Path::new("spec").child("jobTemplate.spec"))).unwrap_or_default()
}

/// The double `spec` is upstream's.
fn zone_warning(cron: &CronJob) -> Option<String> {
    let zoned = cron.spec.schedule.contains("TZ");
    let text = "CRON_TZ or TZ used in spec.spec.schedule is not officially supported, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details";
    zoned.then(|| text.to_owned())
}

fn validate(cron: &CronJob, old: Option<&CronJobSpec>, errors: &mut Errors) {
    let (spec, path) = (&cron.spec, Path::new("spec"));
    validate_schedule(spec, old, &path.child("schedule"), errors);
    rules::non_negative(&path.child("startingDeadlineSeconds"), spec.starting_deadline_seconds.unwrap_or(0), errors);
    if let Some(zone) = spec.time_zone.as_ref().filter(|_| old.is_none_or(|old| old.time_zone != spec.time_zone)) {
        validate_time_zone(zone, &path.child("timeZone"), errors);
    }
    rules::one_of(&path.child("concurrencyPolicy"), text(&spec.concurrency_policy), POLICIES, errors);
    job::validate_template_spec(&spec.job_template, &path.child("jobTemplate"), errors);
    let limits = [
        ("successfulJobsHistoryLimit", spec.successful_jobs_history_limit),
        ("failedJobsHistoryLimit", spec.failed_jobs_history_limit),
    ];
    for (field, limit) in limits {
        rules::non_negative(&path.child(field), limit.unwrap_or(0).into(), errors);
    }
}

/// A time zone has a field of its own. One within the schedule stays where it is from before there was that field.
fn validate_schedule(spec: &CronJobSpec, old: Option<&CronJobSpec>, path: &Path, errors: &mut Errors) {
    let schedule = spec.schedule.as_str();
    if schedule.is_empty() {
        return errors.push(Error::required(path, ""));
    }
    if let Err(error) = Schedule::parse(schedule) {
        errors.push(Error::invalid(path, schedule, error.to_string()));
    }
    let detail = match (old.is_some_and(|old| old.schedule.contains("TZ")), &spec.time_zone) {
        (true, Some(_)) => "cannot use both timeZone field and TZ or CRON_TZ in schedule",
        (true, None) => return,
        (false, _) => "cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
    };
    if schedule.contains("TZ") {
        errors.push(Error::invalid(path, schedule, detail));
    }
}

fn validate_time_zone(zone: &str, path: &Path, errors: &mut Errors) {
    const MAX_PART: usize = 14;
    if zone.is_empty() {
        return errors.push(Error::invalid(path, zone, "timeZone must be nil or non-empty string"));
    }
    let is_part = |part: &str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b".-_+".contains(&byte);
        (1..=MAX_PART).contains(&part.len()) && part.bytes().all(known) && ![".", ".."].contains(&part) && !part.starts_with('-')
    };
    if !zone.split('/').all(is_part) {
        return errors.push(Error::invalid(path, zone, format!("unknown time zone {zone}")));
    }
    if zone.eq_ignore_ascii_case("Local") {
        let detail = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.push(Error::invalid(path, zone, detail));
    }
    if zone != "Local" && !schedule::is_time_zone(zone) {
        errors.push(Error::invalid(path, zone, format!("unknown time zone {zone}")));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use apimachinery::patch;
    use serde_json::json;

    fn cron(change: Value) -> CronJob {
        let pod = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x:1"}]}});
        let base = json!({"metadata": {"name": "nightly"},
            "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": pod}}}});
        let mut object = patch::merge(&base, &change).unwrap();
        CronJob::apply_defaults(&mut object);
        serde_json::from_value(object).unwrap()
    }

    #[track_caller]
    fn check(change: Value, expected: &[&str]) {
        let mut errors = Errors::new();
        cron(change.clone()).validate_create(&mut errors);
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "{change}");
    }

    #[test]
    fn defaults() {
        let spec = cron(json!({})).spec;
        let limits = (spec.successful_jobs_history_limit, spec.failed_jobs_history_limit);
        assert_eq!((limits, spec.suspend, text(&spec.concurrency_policy)), ((Some(3), Some(1)), Some(false), "Allow"));
        let job = spec.job_template.spec.unwrap();
        assert_eq!((job.completions, job.template.spec.unwrap().dns_policy.as_deref()), (None, Some("ClusterFirst")));
    }

    /// KEP-3329: the status of a pattern is True where nothing is said, in a template of jobs as in a job.
    #[test]
    fn failure_policies_match_what_is_true() {
        let rule = json!({"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]});
        let change = json!({"spec": {"jobTemplate": {"spec": {"podFailurePolicy": {"rules": [rule]}}}}});
        let policy = cron(change.clone()).spec.job_template.spec.unwrap().pod_failure_policy.unwrap();
        assert_eq!(policy.rules[0].on_pod_conditions.as_ref().unwrap()[0].status.as_deref(), Some("True"));
        check(change, &[]);
    }

    #[test]
    fn schedules_and_policies() {
        check(json!({}), &[]);
        check(json!({"spec": {"schedule": ""}}), &["spec.schedule: Required value"]);
        check(
            json!({"spec": {"schedule": "error"}}),
            &["spec.schedule: Invalid value: \"error\": expected exactly 5 fields, found 1: [error]"],
        );
        let zoned = "spec.schedule: Invalid value: \"TZ=UTC 0 * * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        check(json!({"spec": {"schedule": "TZ=UTC 0 * * * *"}}), &[zoned]);
        check(
            json!({"spec": {"startingDeadlineSeconds": -1, "successfulJobsHistoryLimit": -2, "failedJobsHistoryLimit": -3,
                    "concurrencyPolicy": "Maybe"}}),
            &[
                "spec.startingDeadlineSeconds: Invalid value: -1: must be greater than or equal to 0",
                "spec.concurrencyPolicy: Unsupported value: \"Maybe\": supported values: \"Allow\", \"Forbid\", \"Replace\"",
                "spec.successfulJobsHistoryLimit: Invalid value: -2: must be greater than or equal to 0",
                "spec.failedJobsHistoryLimit: Invalid value: -3: must be greater than or equal to 0",
            ],
        );
        let long = "a".repeat(53);
        check(
            json!({"metadata": {"name": long}}),
            &[&format!("metadata.name: Invalid value: \"{long}\": must be no more than 52 characters")],
        );
    }

    #[test]
    fn jobs_are_checked_without_their_selector() {
        let job = |spec: Value| json!({"spec": {"jobTemplate": {"spec": spec}}});
        let at = "spec.jobTemplate.spec";
        check(
            job(json!({"template": {"spec": {"restartPolicy": "Always"}}, "parallelism": -1})),
            &[
                &format!("{at}.parallelism: Invalid value: -1: must be greater than or equal to 0"),
                &format!("{at}.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""),
            ],
        );
        check(
            job(json!({"selector": {"matchLabels": {"a": "b"}}, "manualSelector": true})),
            &[
                &format!("{at}.selector: Invalid value: {{\"matchLabels\":{{\"a\":\"b\"}}}}: `selector` will be auto-generated"),
                &format!("{at}.manualSelector: Unsupported value: true: supported values: \"nil\", \"false\""),
            ],
        );
    }

    #[test]
    fn time_zones() {
        let zone = |zone: &str| json!({"spec": {"timeZone": zone}});
        let unknown = |zone: &str| format!("spec.timeZone: Invalid value: {zone:?}: unknown time zone {zone}");
        for good in ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "US/Eastern", "Etc/GMT+8"] {
            check(zone(good), &[]);
        }
        for bad in ["Europe/Neverland", "europe/berlin", "../Berlin", "Continent/Zone/", "Europe//Berlin", "-5"] {
            check(zone(bad), &[&unknown(bad)]);
        }
        check(zone(""), &["spec.timeZone: Invalid value: \"\": timeZone must be nil or non-empty string"]);
        let local = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        check(zone("Local"), &[&format!("spec.timeZone: Invalid value: \"Local\": {local}")]);
    }

    #[test]
    fn a_zone_in_the_schedule_stays() {
        let check = |new: Value, old: Value, expected: &str| {
            let mut errors = Errors::new();
            cron(json!({"spec": new})).validate_update(&cron(json!({"spec": old})), &mut errors);
            assert_eq!(errors.to_string(), expected);
        };
        let zoned = "CRON_TZ=UTC 0 * * * *";
        check(json!({"schedule": zoned}), json!({"schedule": zoned}), "");
        check(
            json!({"schedule": zoned, "timeZone": "UTC"}),
            json!({"schedule": zoned}),
            "spec.schedule: Invalid value: \"CRON_TZ=UTC 0 * * * *\": cannot use both timeZone field and TZ or CRON_TZ in schedule",
        );
        check(json!({"timeZone": "Gone/Zone"}), json!({"timeZone": "Gone/Zone"}), "");
    }

    #[test]
    fn cells() {
        let shown = cron(json!({"spec": {"timeZone": "UTC"}, "status": {"active": [{"name": "a"}]}}));
        let of = |column: &Column<CronJob>| match column.cell {
            crate::columns::Cell::Of(cell) => cell(&shown, jiff::Timestamp::UNIX_EPOCH),
            _ => Value::Null,
        };
        let cells: Vec<_> = CronJob::columns().iter().map(of).collect();
        assert_eq!(json!(cells), json!(["* * * * *", "UTC", "False", 1, "<none>", "c", "x:1", "<none>"]));
    }
}
