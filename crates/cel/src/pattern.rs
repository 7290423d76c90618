//! Patterns of `matches` and `find`. An expression's are nearly always the same, so that the last ones are kept compiled.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use regex::Regex;

use crate::error::Error;
use crate::re2;

/// How many compiled patterns are kept.
const KEPT: usize = 256;

static CACHE: LazyLock<std::sync::Mutex<HashMap<String, Arc<Regex>>>> = LazyLock::new(Default::default);

pub(crate) fn compile(pattern: &str) -> Result<Arc<Regex>, Error> {
    let lock = || CACHE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(known) = lock().get(pattern) {
        return Ok(known.clone());
    }
    let compiled = Arc::new(re2::compile(pattern).map_err(|error| Error::Other(error.to_string()))?);
    let mut known = lock();
    if known.len() >= KEPT {
        known.clear();
    }
    known.insert(pattern.to_owned(), compiled.clone());
    Ok(compiled)
}
