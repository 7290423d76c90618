//! Changes of what is served: definitions of custom resources come, change and go while everything else goes on.

use std::sync::Arc;

use kinds::{CustomVersion, Rules};

use crate::cache::Cache;
use crate::form::Form;
use crate::storage::{Storage, prefix};
use crate::{Converter, OpenError, Registry, Served};

/// Objects from before their definition changed. They are read in the new form all the same; this makes reading them cheap again.
#[must_use]
pub struct Renewal(Arc<Cache>);

impl Renewal {
    /// Brings them into the new form, a few at a time. It ends when the definition has changed again.
    pub fn run(self) {
        self.0.renew();
    }
}

impl Registry {
    /// Serves a custom resource in these versions, of which one is stored; what was served of it before is replaced, and its watches
    /// begin again. `converter` is who converts between them, where it is more than another name. A resource of the program itself is not
    /// replaced. What is left to do with objects from before is the caller's, who holds nobody up with it.
    ///
    /// # Errors
    /// Its objects could not be read.
    pub async fn define(
        &self,
        group: &str,
        plural: &str,
        versions: Vec<CustomVersion>,
        converter: Option<Arc<dyn Converter>>,
    ) -> Result<Option<Renewal>, OpenError> {
        let mut epoch = self.epoch.lock().await;
        let prefix = prefix(group, plural);
        let known = self.catalog().storage(&prefix).cloned();
        if self.catalog().is_builtin(group, plural) {
            return Ok(None);
        }
        let Some(stored) = versions.iter().find(|version| version.storage) else { return Ok(None) };
        *epoch += 1;
        let rules = Rules::Custom(stored.kind.clone());
        let form = Form::new(rules, *epoch).map_err(OpenError::Schema)?.by_webhook(converter.is_some());
        let changes = known.is_some();
        let storage = match known {
            Some(storage) => {
                storage.cache.set_form(form);
                storage
            }
            None => self.open_storage(form).await?,
        };
        let served = serve(versions, &storage, *epoch, converter.as_ref())?;
        // Where none is served, its objects are kept, and nobody sees them.
        self.publish(self.catalog().with_versions(&storage, served));
        storage.cache.cut();
        Ok(changes.then(|| Renewal(storage.cache.clone())))
    }

    /// Serves a custom resource with other facts, under a definition that has not changed: its objects are as they were, and its watches go
    /// on.
    ///
    /// # Errors
    /// A schema cannot be used.
    pub async fn refine(
        &self,
        group: &str,
        plural: &str,
        versions: Vec<CustomVersion>,
        converter: Option<Arc<dyn Converter>>,
    ) -> Result<(), OpenError> {
        let _changes = self.epoch.lock().await;
        let prefix = prefix(group, plural);
        let catalog = self.catalog();
        let Some(storage) = catalog.storage(&prefix).filter(|_| !catalog.is_builtin(group, plural)) else { return Ok(()) };
        let epoch = storage.form().epoch;
        let served = serve(versions, storage, epoch, converter.as_ref())?;
        if !served.is_empty() {
            self.publish(catalog.with_versions(storage, served));
        }
        Ok(())
    }

    /// Serves a custom resource no more.
    pub async fn undefine(&self, group: &str, plural: &str) {
        let _changes = self.epoch.lock().await;
        let prefix = prefix(group, plural);
        if self.catalog().is_builtin(group, plural) {
            return;
        }
        let catalog = self.catalog();
        if let Some(storage) = catalog.storage(&prefix) {
            self.publish(catalog.without(&prefix));
            storage.cache.cut();
        }
    }

    /// The version of a custom resource that its objects are stored in, whatever is served of it, so that they can go. None of what is
    /// part of the program.
    ///
    /// # Errors
    /// Its objects could not be read.
    pub async fn stored_version(
        &self,
        group: &str,
        plural: &str,
        stored: CustomVersion,
    ) -> Result<Option<Arc<Served>>, OpenError> {
        let mut epoch = self.epoch.lock().await;
        let catalog = self.catalog();
        if catalog.is_builtin(group, plural) {
            return Ok(None);
        }
        let rules = Rules::Custom(stored.kind);
        let storage = match catalog.storage(&prefix(group, plural)) {
            Some(storage) => storage.clone(),
            None => {
                *epoch += 1;
                self.open_storage(Form::new(rules.clone(), *epoch).map_err(OpenError::Schema)?).await?
            }
        };
        let of = storage.form().epoch;
        Served::new(rules, storage, false, of).map(|served| Some(Arc::new(served))).map_err(OpenError::Schema)
    }

    /// A storage with what the store has of it. It is fed before it is read, so that nothing is missed; one that cannot be read is not
    /// there, or it would be taken for an empty one.
    async fn open_storage(&self, form: Form) -> Result<Arc<Storage>, OpenError> {
        let storage = Arc::new(Storage::new(form));
        self.publish(self.catalog().with_storage(&storage));
        if let Err(error) = storage.load(self.engine.as_ref(), self.revision()).await {
            self.publish(self.catalog().without(&storage.prefix));
            return Err(error.into());
        }
        Ok(storage)
    }
}

/// Those of the versions that clients see.
fn serve(
    versions: Vec<CustomVersion>,
    storage: &Arc<Storage>,
    epoch: u64,
    converter: Option<&Arc<dyn Converter>>,
) -> Result<Vec<Arc<Served>>, OpenError> {
    let seen = versions.into_iter().filter(|version| version.served);
    let served = seen.map(|version| Served::new(Rules::Custom(version.kind), storage.clone(), !version.storage, epoch));
    let served = served.map(|served| served.map(|served| Arc::new(served.converted_by(converter.cloned()))));
    served.collect::<Result<_, _>>().map_err(OpenError::Schema)
}
