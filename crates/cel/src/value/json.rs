//! Values as JSON.

use serde_json::{Map as JsonMap, Value as Json};

use super::{List, Map, Value};

/// Why a value is no JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoJson {
    /// JSON has no form of it.
    #[error("its value is no JSON")]
    Form,
    /// It is larger than any object.
    #[error("its value is larger than an object may be")]
    TooLarge,
}

/// Bytes that JSON of a value has at most: as many as requests may have.
const LARGEST: usize = 3 << 20;

/// Counts a value that has so many bytes at least.
fn take(left: &mut usize, bytes: usize) -> Result<(), NoJson> {
    *left = left.checked_sub(1 + bytes).ok_or(NoJson::TooLarge)?;
    Ok(())
}

fn count(json: &Json, left: &mut usize) -> Result<(), NoJson> {
    take(left, json.as_str().map_or(0, str::len))?;
    match json {
        Json::Array(items) => items.iter().try_for_each(|item| count(item, left)),
        Json::Object(map) => count_entries(map, left),
        _ => Ok(()),
    }
}

fn count_entries(map: &JsonMap<String, Json>, left: &mut usize) -> Result<(), NoJson> {
    map.iter().try_for_each(|(key, value)| take(left, key.len()).and_then(|()| count(value, left)))
}

impl Value<'_> {
    /// As JSON.
    ///
    /// # Errors
    /// JSON has no form of it, or it is larger than an object may be: what an expression makes may have the same part many times.
    pub fn to_json(&self) -> Result<Json, NoJson> {
        let mut left = LARGEST;
        self.to_json_within(&mut left)
    }

    fn to_json_within(&self, left: &mut usize) -> Result<Json, NoJson> {
        let bytes = match self {
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            _ => 0,
        };
        take(left, bytes)?;
        Ok(match self {
            Self::Null => Json::Null,
            Self::Bool(value) => (*value).into(),
            Self::Int(value) => (*value).into(),
            Self::Uint(value) => (*value).into(),
            Self::Double(value) => (*value).into(),
            Self::Text(text) => Json::String(text.to_string()),
            Self::Bytes(bytes) => {
                use base64::Engine as _;
                base64::engine::general_purpose::STANDARD.encode(bytes).into()
            }
            Self::Duration(_) | Self::Time(_) | Self::Quantity(_) | Self::Ip(_) | Self::Cidr(_) | Self::Semver(_) => {
                crate::functions::show(self).into()
            }
            Self::List(List::Json(items, _)) => {
                items.iter().try_for_each(|item| count(item, left))?;
                Json::Array(items.to_vec())
            }
            Self::List(list) => list.iter().map(|item| item.to_json_within(left)).collect::<Result<Vec<_>, _>>()?.into(),
            Self::Map(Map::Json(map, _)) => {
                count_entries(map, left)?;
                Json::Object((*map).clone())
            }
            Self::Map(Map::Made(entries) | Map::Lenient(entries)) => {
                let mut map = JsonMap::new();
                for (key, value) in entries.all() {
                    let key = key.as_text().ok_or(NoJson::Form)?;
                    take(left, key.len())?;
                    map.insert(key.to_owned(), value.to_json_within(left)?);
                }
                Json::Object(map)
            }
            Self::Optional(inner) => inner.as_ref().ok_or(NoJson::Form)?.to_json_within(left)?,
            Self::Type(_) | Self::Url(_) | Self::Format(_) | Self::Question(_) | Self::Decision(_) => {
                return Err(NoJson::Form);
            }
        })
    }
}
