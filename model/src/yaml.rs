//! What keys of YAML files mean.

use serde::{Deserialize, Deserializer};

/// A key without a value, such as `rule_files:` with nothing but comments below it, is as if it were not there.
///
/// # Errors
/// Those of the value, if there is one.
pub fn null_is_default<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(from)?.unwrap_or_default())
}
