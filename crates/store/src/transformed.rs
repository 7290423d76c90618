//! Values that are stored in another form than they are read in, such as encrypted ones, over any engine.
//!
//! What readers and sinks see is never the stored form: a value that cannot be brought back is an error that names its key.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::RwLock;

use crate::{Change, Changes, Engine, Error, Event, Note, Page, Record, Revision, Sink, Write};

/// Brings values into their stored form and back. Both see the key, to which a stored value is bound.
pub trait Transformer: Send + Sync {
    /// The form that is stored, none when that is the value itself.
    fn transform_to_storage(&self, key: &[u8], value: &[u8]) -> Result<Option<Bytes>, Error>;

    /// The value of a stored form, none when that is the value itself.
    fn transform_from_storage(&self, key: &[u8], stored: &[u8]) -> Result<Option<Bytes>, Error>;

    /// Whether values of a key may be stored in another form.
    fn concerns(&self, key: &[u8]) -> bool;

    /// Whether a stored form is another than the value.
    fn is_transformed(&self, stored: &[u8]) -> bool;

    /// What each write holds for reading from before its value is transformed until it is stored or refused, also when nobody waits for it any
    /// more. Who changes the form holds it for writing, for a moment: then nothing is on its way in the form before.
    fn writes(&self) -> Option<&Arc<RwLock<()>>> {
        None
    }

    /// Whether a stored form is not what the value would be brought into today.
    fn is_stale(&self, key: &[u8], stored: &[u8]) -> bool;
}

/// An engine whose values are transformed. Cheap to clone where the engine is.
#[derive(Clone)]
pub struct Transformed<E> {
    engine: E,
    transformer: Arc<dyn Transformer>,
}

impl<E: Engine> Transformed<E> {
    /// Transforms what goes through to `engine`.
    pub fn new(engine: E, transformer: Arc<dyn Transformer>) -> Self {
        Self { engine, transformer }
    }

    /// The engine that has the stored forms.
    pub fn inner(&self) -> &E {
        &self.engine
    }

    /// The past is read with today's keys. What was written with one that is gone since is past history.
    fn past(&self, error: Error) -> Error {
        match error {
            Error::Untransformed { .. } => Error::Compacted(self.engine.revision()),
            error => error,
        }
    }
}

fn opened(transformer: &dyn Transformer, mut record: Record) -> Result<Record, Error> {
    if let Some(value) = transformer.transform_from_storage(&record.key, &record.value)? {
        record.value = value;
    }
    Ok(record)
}

fn opened_event(transformer: &dyn Transformer, mut event: Event) -> Result<Event, Error> {
    if let Some(stored) = &event.value
        && let Some(value) = transformer.transform_from_storage(&event.key, stored)?
    {
        event.value = Some(value);
    }
    event.previous = event.previous.map(|record| opened(transformer, record)).transpose()?;
    Ok(event)
}

/// The value of a commit whose stored form is another, with the writer's own note: the sinks of this process need not bring it back.
struct Plain {
    value: Bytes,
    note: Option<Note>,
}

/// A sink that sees values.
struct Opening {
    sink: Arc<dyn Sink>,
    transformer: Arc<dyn Transformer>,
}

impl Opening {
    fn event(&self, event: &Event) -> Event {
        let mut event = event.clone();
        if let Some(plain) = event.note.clone().and_then(|note| note.downcast::<Plain>().ok()) {
            event.value = Some(plain.value.clone());
            event.note = plain.note.clone();
        }
        event.previous = event.previous.map(|mut record| {
            match self.transformer.transform_from_storage(&record.key, &record.value) {
                Ok(Some(value)) => record.value = value,
                Ok(None) => {}
                Err(error) => {
                    // It is gone, and its stored form is nobody's business.
                    tracing::warn!(%error, "the value before a change cannot be read");
                    record.value = Bytes::new();
                }
            }
            record
        });
        event
    }
}

impl Sink for Opening {
    fn apply(&self, events: &[Event]) {
        let is_plain = |event: &Event| {
            let noted = event.note.as_ref().is_some_and(|note| note.is::<Plain>());
            !noted && !event.previous.as_ref().is_some_and(|record| self.transformer.is_transformed(&record.value))
        };
        // Most batches have nothing that was transformed, and are handed on as they are.
        if events.iter().all(is_plain) {
            return self.sink.apply(events);
        }
        self.sink.apply(&events.iter().map(|event| self.event(event)).collect::<Vec<_>>());
    }
}

#[async_trait]
impl<E: Engine> Engine for Transformed<E> {
    fn revision(&self) -> Revision {
        self.engine.revision()
    }

    fn compacted(&self) -> Revision {
        self.engine.compacted()
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Record>, Error> {
        let record = self.engine.get(key).await?;
        record.map(|record| opened(&*self.transformer, record)).transpose()
    }

    async fn range(&self, start: &[u8], end: &[u8], at: Option<Revision>, limit: usize) -> Result<Page, Error> {
        let mut page = self.engine.range(start, end, at, limit).await?;
        let records = std::mem::take(&mut page.records).into_iter().map(|record| opened(&*self.transformer, record));
        let records = records.collect::<Result<_, _>>();
        page.records = if at.is_some() { records.map_err(|error| self.past(error))? } else { records? };
        Ok(page)
    }

    async fn changes(&self, prefix: &[u8], after: Revision, upto: Revision) -> Result<Changes, Error> {
        let mut changes = self.engine.changes(prefix, after, upto).await?;
        let events = std::mem::take(&mut changes.events).into_iter().map(|event| opened_event(&*self.transformer, event));
        changes.events = events.collect::<Result<_, _>>().map_err(|error| self.past(error))?;
        Ok(changes)
    }

    async fn commit(&self, mut write: Write) -> Result<Revision, Error> {
        if let Some(writes) = self.transformer.writes() {
            write.holds.push(Arc::new(writes.clone().read_owned().await));
        }
        if let Change::Put(value) = &write.change
            && let Some(stored) = self.transformer.transform_to_storage(&write.key, value)?
        {
            write.note = Some(Arc::new(Plain { value: value.clone(), note: write.note.take() }));
            write.change = Change::Put(stored);
        }
        match self.engine.commit(write).await {
            Err(Error::Conflict(Some(record))) => Err(Error::Conflict(Some(opened(&*self.transformer, record)?))),
            other => other,
        }
    }

    async fn is_stale(&self, key: &[u8]) -> Result<bool, Error> {
        if !self.transformer.concerns(key) {
            return Ok(false);
        }
        let record = self.engine.get(key).await?;
        Ok(record.is_some_and(|record| self.transformer.is_stale(key, &record.value)))
    }

    fn subscribe(&self, sink: Arc<dyn Sink>) -> Revision {
        self.engine.subscribe(Arc::new(Opening { sink, transformer: self.transformer.clone() }))
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.engine.compact(revision).await
    }
}

#[cfg(test)]
mod tests;
