//! One image layer in memory. Entries are sorted and carry no times, so the same input gives the same digest.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

enum Entry {
    Directory { mode: u32 },
    File { mode: u32, data: Vec<u8> },
    Link { target: String },
}

/// Files of a layer, by path without a leading slash.
#[derive(Default)]
pub struct Layer(BTreeMap<String, Entry>);

impl Layer {
    /// A directory and its parents.
    pub fn dir(&mut self, path: &str, mode: u32) -> &mut Self {
        let path = path.trim_matches('/');
        if !path.is_empty() && !self.0.contains_key(path) {
            self.parents(path);
            self.0.insert(path.to_owned(), Entry::Directory { mode });
        }
        self
    }

    /// A file with its parent directories.
    pub fn file(&mut self, path: &str, data: impl Into<Vec<u8>>, mode: u32) -> &mut Self {
        self.parents(path);
        self.0.insert(path.trim_matches('/').to_owned(), Entry::File { mode, data: data.into() });
        self
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &str, target: &str) -> &mut Self {
        self.parents(path);
        self.0.entry(path.trim_matches('/').to_owned()).or_insert_with(|| Entry::Link { target: target.to_owned() });
        self
    }

    /// Files of this machine at their own paths, with the libraries that the loader maps for them.
    pub fn host(&mut self, paths: &[&str]) -> Result<&mut Self> {
        let mut found = BTreeSet::new();
        for path in paths {
            found.insert((*path).to_owned());
            let output = Command::new("ldd").arg(path).output().context("ldd")?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            found.extend(text.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned));
        }
        for path in found {
            self.copy(Path::new(&path), &path)?;
        }
        Ok(self)
    }

    /// A file, or a directory with all that it has, at this path of the layer.
    pub fn tree_at(&mut self, from: &Path, to: &str) -> Result<&mut Self> {
        if !from.is_dir() {
            self.copy(from, to)?;
            return Ok(self);
        }
        self.dir(to, 0o755);
        for entry in fs::read_dir(from)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            self.tree_at(&path, &format!("{to}/{name}"))?;
        }
        Ok(self)
    }

    fn copy(&mut self, from: &Path, to: &str) -> Result<()> {
        let source = fs::canonicalize(from).with_context(|| from.display().to_string())?;
        let mode = fs::metadata(&source)?.permissions().mode() & 0o777;
        let data = fs::read(&source).with_context(|| source.display().to_string())?;
        self.file(to, data, mode);
        Ok(())
    }

    fn parents(&mut self, path: &str) {
        let path = path.trim_matches('/');
        for (end, _) in path.match_indices('/') {
            self.0.entry(path[..end].to_owned()).or_insert(Entry::Directory { mode: 0o755 });
        }
    }

    /// The layer as an uncompressed tar archive.
    pub fn tar(&self) -> Result<Vec<u8>> {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, entry) in &self.0 {
            let mut header = tar::Header::new_gnu();
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            match entry {
                Entry::Directory { mode } => {
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_mode(*mode);
                    header.set_size(0);
                    archive.append_data(&mut header, path, std::io::empty())?;
                }
                Entry::File { mode, data } => {
                    header.set_mode(*mode);
                    header.set_size(data.len() as u64);
                    archive.append_data(&mut header, path, data.as_slice())?;
                }
                Entry::Link { target } => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_mode(0o777);
                    header.set_size(0);
                    archive.append_link(&mut header, path, target)?;
                }
            }
        }
        Ok(archive.into_inner()?)
    }
}
