//! Files that the API server is told of: what cannot be used is told with its path.

use std::path::{Path, PathBuf};

type Why = Box<dyn std::error::Error + Send + Sync>;

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}", path = path.display())]
pub struct FileError {
    /// Which.
    pub path: PathBuf,
    /// Why: it cannot be read, or what it says is wrong.
    pub source: Why,
}

impl FileError {
    pub(crate) fn new(path: &Path, source: impl Into<Why>) -> Self {
        Self { path: path.to_owned(), source: source.into() }
    }
}

/// The text of a file.
pub(crate) fn read(path: &Path) -> Result<String, FileError> {
    std::fs::read_to_string(path).map_err(|source| FileError::new(path, source))
}
