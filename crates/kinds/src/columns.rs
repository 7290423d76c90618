//! Table columns, as `kubectl get` shows them.

use apimachinery::table::ColumnDefinition;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

pub(crate) const AGE_DESCRIPTION: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.";

/// Definition of one column.
#[derive(Clone, Copy, Debug)]
pub struct ColumnDef {
    /// Heading.
    pub name: &'static str,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub kind: &'static str,
    /// `name` for the name column, else empty.
    pub format: &'static str,
    /// Explanation.
    pub description: &'static str,
    /// 0 is always shown, more only in wide output.
    pub priority: i32,
}

impl ColumnDef {
    /// In the form that tables are made of.
    pub(crate) fn definition(&self) -> ColumnDefinition {
        if self.format == "name" {
            return ColumnDefinition { priority: self.priority, ..ColumnDefinition::name_column() };
        }
        let text = ColumnDefinition::text(self.name, self.priority, self.description);
        ColumnDefinition { ty: self.kind.to_owned(), format: self.format.to_owned(), ..text }
    }
}

/// What fills a cell.
pub enum Cell<K: 'static> {
    /// The object's name.
    Name,
    /// How long ago it was created.
    Age,
    /// When it was created.
    Created,
    /// What this function says.
    Of(fn(&K, Timestamp) -> Value),
}

/// A column of a typed kind, with what fills its cell.
pub struct Column<K: 'static> {
    /// Definition.
    pub def: ColumnDef,
    /// The cell.
    pub cell: Cell<K>,
}

impl<K> Column<K> {
    /// The object's name.
    pub const NAME: Self = Self { def: column("Name", "string", "name", "", 0), cell: Cell::Name };
    /// The object's name, in wide output.
    pub const WIDE_NAME: Self = Self { def: column("Name", "string", "name", "", 1), cell: Cell::Name };
    /// How long ago it was created.
    pub const AGE: Self = Self { def: column("Age", "string", "", AGE_DESCRIPTION, 0), cell: Cell::Age };
    /// When it was created.
    pub const CREATED: Self = Self { def: column("Created At", "date", "", AGE_DESCRIPTION, 0), cell: Cell::Created };

    /// A text column.
    pub const fn new(name: &'static str, description: &'static str, cell: fn(&K, Timestamp) -> Value) -> Self {
        Self { def: column(name, "string", "", description, 0), cell: Cell::Of(cell) }
    }

    /// A column of whole numbers.
    pub const fn integer(name: &'static str, description: &'static str, cell: fn(&K, Timestamp) -> Value) -> Self {
        Self { def: column(name, "integer", "", description, 0), cell: Cell::Of(cell) }
    }

    /// A column of yes and no.
    pub const fn boolean(name: &'static str, description: &'static str, cell: fn(&K, Timestamp) -> Value) -> Self {
        Self { def: column(name, "boolean", "", description, 0), cell: Cell::Of(cell) }
    }

    /// The object's name with a remark of the kind.
    pub const fn named(cell: fn(&K, Timestamp) -> Value) -> Self {
        Self { def: Self::NAME.def, cell: Cell::Of(cell) }
    }

    /// A text column that is shown in wide output only.
    pub const fn wide(name: &'static str, description: &'static str, cell: fn(&K, Timestamp) -> Value) -> Self {
        Self { def: column(name, "string", "", description, 1), cell: Cell::Of(cell) }
    }
}

/// The name of a class, and whether it is the one that is taken when none is named: one of the annotations `default` says so.
pub(crate) fn class_name(metadata: &ObjectMeta, default: &[&str]) -> Value {
    let name = metadata.name.as_deref().unwrap_or_default();
    let notes = metadata.annotations.as_ref();
    let is_default = |key: &&str| notes.and_then(|notes| notes.get(*key)).is_some_and(|value| value == "true");
    if default.iter().any(is_default) { format!("{name} (default)").into() } else { name.into() }
}

/// The table of `autoscaling/v1 Scale`, which is a view of objects of several kinds and not a kind itself.
pub fn scale_columns() -> Vec<ColumnDefinition> {
    let desired = column("Desired", "integer", "", "replicas is the desired number of instances for the scaled object.", 0);
    let available =
        column("Available", "integer", "", "replicas is the actual number of observed instances of the scaled object.", 0);
    [Column::<()>::NAME.def, desired, available, Column::<()>::AGE.def].iter().map(ColumnDef::definition).collect()
}

/// A row of [`scale_columns`].
pub fn scale_row(scale: &Value, now: Timestamp) -> Vec<Value> {
    let number = |pointer: &str| scale.pointer(pointer).cloned().unwrap_or(0.into());
    let text = |pointer: &str| scale.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let age = apimachinery::table::age(text("/metadata/creationTimestamp"), now);
    vec![text("/metadata/name").into(), number("/spec/replicas"), number("/status/replicas"), age.into()]
}

const fn column(
    name: &'static str,
    kind: &'static str,
    format: &'static str,
    description: &'static str,
    priority: i32,
) -> ColumnDef {
    ColumnDef { name, kind, format, description, priority }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::KINDS;

    /// Headings as `kubectl get` shows them, those of wide output in brackets.
    #[track_caller]
    fn check(kind: &str, expected: &str) {
        let strategy = KINDS.iter().find(|strategy| strategy.def().kind == kind).unwrap();
        let heading = |column: apimachinery::table::ColumnDefinition| {
            if column.priority > 0 { format!("[{}]", column.name) } else { column.name }
        };
        let headings: Vec<_> = strategy.columns().into_iter().map(heading).collect();
        assert_eq!(headings.join("|"), expected, "{kind}");
    }

    #[test]
    fn a_scale_has_its_own_table() {
        let scale = serde_json::json!({"metadata": {"name": "web"}, "spec": {"replicas": 3}, "status": {"replicas": 2}});
        let row = super::scale_row(&scale, jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(row[..3], ["web".into(), serde_json::json!(3), serde_json::json!(2)]);
        assert_eq!(super::scale_columns().len(), row.len());
    }

    #[test]
    fn headings_stand_where_upstream_has_them() {
        check("ConfigMap", "Name|Data|Age");
        check("Secret", "Name|Type|Data|Age");
        check("ServiceAccount", "Name|Age");
        check("Namespace", "Name|Status|Age");
        check(
            "Node",
            "Name|Status|Roles|Age|Version|[Internal-IP]|[External-IP]|[OS-Image]|[Kernel-Version]|[Container-Runtime]",
        );
        check("Pod", "Name|Ready|Status|Restarts|Age|[IP]|[Node]|[Nominated Node]|[Readiness Gates]");
        check("Service", "Name|Type|Cluster-IP|External-IP|Port(s)|Age|[Selector]");
        check("Event", "Last Seen|Type|Reason|Object|[Subobject]|[Source]|Message|[First Seen]|[Count]|[Name]");
        check("PodTemplate", "Name|Containers|Images|Pod Labels");
        check("Deployment", "Name|Ready|Up-to-date|Available|Age|[Containers]|[Images]|[Selector]");
        check("ReplicaSet", "Name|Desired|Current|Ready|Age|[Containers]|[Images]|[Selector]");
        check("StatefulSet", "Name|Ready|Age|[Containers]|[Images]");
        check("DaemonSet", "Name|Desired|Current|Ready|Up-to-date|Available|Node Selector|Age|[Containers]|[Images]|[Selector]");
        check("Job", "Name|Status|Completions|Duration|Age|[Containers]|[Images]|[Selector]");
        check("CronJob", "Name|Schedule|Timezone|Suspend|Active|Last Schedule|Age|[Containers]|[Images]|[Selector]");
        check("PodDisruptionBudget", "Name|Min Available|Max Unavailable|Allowed Disruptions|Age");
        check("HorizontalPodAutoscaler", "Name|Reference|Targets|MinPods|MaxPods|Replicas|Age");
        check("LimitRange", "Name|Created At");
        check("ResourceQuota", "Name|Request|Limit|Age");
        check("ControllerRevision", "Name|Controller|Revision|Age");
        check("Lease", "Name|Holder|Age");
        check("EndpointSlice", "Name|AddressType|Ports|Endpoints|Age");
        check("Role", "Name|Created At");
        check("ClusterRole", "Name|Created At");
        check("RoleBinding", "Name|Role|Age|[Users]|[Groups]|[ServiceAccounts]");
        check("ClusterRoleBinding", "Name|Role|Age|[Users]|[Groups]|[ServiceAccounts]");
        check("PriorityClass", "Name|Value|Global-Default|Age|PreemptionPolicy");
        check("RuntimeClass", "Name|Handler|Age");
        check(
            "PersistentVolume",
            "Name|Capacity|Access Modes|Reclaim Policy|Status|Claim|StorageClass|VolumeAttributesClass|Reason|Age|[VolumeMode]",
        );
        check(
            "PersistentVolumeClaim",
            "Name|Status|Volume|Capacity|Access Modes|StorageClass|VolumeAttributesClass|Age|[VolumeMode]",
        );
        check("StorageClass", "Name|Provisioner|ReclaimPolicy|VolumeBindingMode|AllowVolumeExpansion|Age");
        check("VolumeAttributesClass", "Name|DriverName|Age");
        check("CSIDriver", "Name|AttachRequired|PodInfoOnMount|StorageCapacity|TokenRequests|RequiresRepublish|Modes|Age");
        check("CSINode", "Name|Drivers|Age");
        check("CSIStorageCapacity", "Name|StorageClassName|Capacity");
        check("VolumeAttachment", "Name|Attacher|PV|Node|Attached|Age");
        check("Ingress", "Name|Class|Hosts|Address|Ports|Age");
        check("IngressClass", "Name|Controller|Parameters|Age");
        check("NetworkPolicy", "Name|Pod-Selector|Age");
        check("IPAddress", "Name|ParentRef");
        check("ServiceCIDR", "Name|CIDRs|Age");
        check("ClusterTrustBundle", "Name|SignerName");
        check("ResourceClaim", "Name|State|Age");
        check("ResourceClaimTemplate", "Name|Age");
        check("ResourceSlice", "Name|Node|Driver|Pool|Age");
        check("DeviceClass", "Name|Age");
    }
}
