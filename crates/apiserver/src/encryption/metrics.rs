//! What is counted of encryption, under upstream's names.

use std::sync::LazyLock;

use base::metrics::Page;
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    resource: String,
    transformation_type: &'static str,
    transformer_prefix: String,
    status: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reload {
    status: &'static str,
}

static OPERATIONS: LazyLock<Family<Operation, Counter>> = LazyLock::new(|| {
    Page::Server.register(
        "apiserver_storage_transformation_operations",
        "Total number of transformations. Successful transformation will have a status 'OK' and a varied status string when the transformation fails.",
        Family::default(),
    )
});

static RELOADS: LazyLock<Family<Reload, Counter>> = LazyLock::new(|| {
    Page::Server.register(
        "apiserver_encryption_config_controller_automatic_reloads",
        "Total number of reload successes and failures of encryption configuration split by apiserver identity.",
        Family::default(),
    )
});

static APPLIED: LazyLock<&'static Mutex<String>> = LazyLock::new(|| {
    static HASH: Mutex<String> = Mutex::new(String::new());
    Page::Server.observe(
        "apiserver_encryption_config_controller_last_config_info",
        "Information about the last applied encryption configuration with hash as label, split by apiserver identity.",
        |tell| {
            let hash = HASH.lock();
            tell(&[("hash", hash.as_str())], 1.0);
        },
    );
    &HASH
});

/// A value was encrypted or decrypted.
pub(super) fn transformed(key: &[u8], transformation_type: &'static str, prefix: &str, done: bool) {
    let (resource, group) = super::resource_of(key).unwrap_or_default();
    let resource = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
    let status = if done { "OK" } else { "Internal" };
    let operation = Operation { resource, transformation_type, transformer_prefix: prefix.to_owned(), status };
    OPERATIONS.get_or_create(&operation).inc();
}

/// A changed configuration was taken, or not.
pub(super) fn reloaded(taken: bool) {
    RELOADS.get_or_create(&Reload { status: if taken { "success" } else { "failure" } }).inc();
}

/// The hash of the configuration that is in force.
pub(super) fn applied(hash: &str) {
    hash.clone_into(&mut APPLIED.lock());
}
