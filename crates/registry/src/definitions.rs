//! Changes of what is served: definitions of custom resources come, change and go while everything else goes on.

use std::sync::Arc;

use kinds::{CustomVersion, Rules};

use crate::form::Form;
use crate::storage::{Storage, prefix};
use crate::{Converter, OpenError, Registry, Served};

impl Registry {
    /// Serves a custom resource in these versions, of which one is stored; what was served of it before is replaced, and its watches
    /// begin again. `converter` is who converts between them, where it is more than another name. Says whether it is served: a resource of the program itself is not replaced.
    ///
    /// # Errors
    /// Its objects could not be read.
    pub async fn define(
        &self,
        group: &str,
        plural: &str,
        versions: Vec<CustomVersion>,
        converter: Option<Arc<dyn Converter>>,
    ) -> Result<bool, OpenError> {
        let mut epoch = self.epoch.lock().await;
        let prefix = prefix(group, plural);
        let known = self.catalog().storage(&prefix).cloned();
        if self.is_builtin(group, plural) {
            return Ok(false);
        }
        let Some(stored) = versions.iter().find(|version| version.storage) else { return Ok(false) };
        *epoch += 1;
        let rules = Rules::Custom(stored.kind.clone());
        let form = Form::new(rules, *epoch).map_err(OpenError::Schema)?.by_webhook(converter.is_some());
        let storage = match known {
            Some(storage) => {
                storage.cache.set_form(form);
                storage
            }
            None => self.open_storage(form).await?,
        };
        let served = versions
            .into_iter()
            .filter(|version| version.served)
            .map(|version| Served::new(Rules::Custom(version.kind), storage.clone(), !version.storage, *epoch))
            .map(|served| served.map(|served| Arc::new(served.converted_by(converter.clone()))));
        let served = served.collect::<Result<Vec<_>, _>>().map_err(OpenError::Schema)?;
        if served.is_empty() {
            // Its objects are kept, and nobody sees them.
            self.publish(self.catalog().with_versions(&prefix, Vec::new()));
            storage.cache.cut();
            return Ok(false);
        }
        self.publish(self.catalog().with_versions(&prefix, served));
        storage.cache.cut();
        // Objects from before are read in the new form all the same; this makes reading them cheap again.
        let cache = storage.cache.clone();
        let renewed = tokio::task::spawn_blocking(move || cache.renew()).await;
        renewed.map(|()| true).map_err(|error| OpenError::Schema(error.to_string()))
    }

    /// Serves a custom resource no more.
    pub async fn undefine(&self, group: &str, plural: &str) {
        let _changes = self.epoch.lock().await;
        let prefix = prefix(group, plural);
        if self.is_builtin(group, plural) {
            return;
        }
        let catalog = self.catalog();
        if let Some(storage) = catalog.storage(&prefix) {
            self.publish(catalog.with_versions(&prefix, Vec::new()));
            storage.cache.cut();
        }
    }

    /// Whether a resource is part of the program.
    fn is_builtin(&self, group: &str, plural: &str) -> bool {
        self.catalog().iter().any(|served| served.def.group == group && served.def.plural == plural && !served.is_custom())
    }

    /// A storage with what the store has of it. It is fed before it is read, so that nothing is missed.
    async fn open_storage(&self, form: Form) -> Result<Arc<Storage>, OpenError> {
        let storage = Arc::new(Storage::new(form));
        self.publish(self.catalog().with_storage(&storage));
        storage.load(self.engine.as_ref(), self.revision()).await?;
        Ok(storage)
    }
}
