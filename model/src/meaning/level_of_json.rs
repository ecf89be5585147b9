//! The level of a message that is an object of JSON, of which nothing else is kept.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::{LEVEL_FIELDS, flatten, named_level};
use crate::log::FieldValue;

/// The level, `""` if no field names one; `None` if the text is no object of JSON that has a field.
pub(super) fn read(text: &str) -> Option<&'static str> {
    let mut found = Found::default();
    let mut from = serde_json::Deserializer::from_str(text);
    from.deserialize_map(Members(&mut found)).ok()?;
    from.end().ok()?;
    if !found.has_field && found.members.iter().all(|(_, fields)| fields.is_empty()) {
        return None;
    }
    let fields: Vec<(String, FieldValue)> =
        found.members.into_iter().flat_map(|(_, fields)| fields).collect();
    Some(named_level(&fields).unwrap_or(""))
}

#[derive(Default)]
struct Found {
    /// Members that may name the level, with their fields. Of two of one name the last counts, in the place of the first.
    members: Vec<(&'static str, Vec<(String, FieldValue)>)>,
    /// Whether another member has a value.
    has_field: bool,
}

struct Members<'f>(&'f mut Found);

impl<'de> Visitor<'de> for Members<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(KeySeed)? {
            match key {
                Key::Named(name) => {
                    let mut fields = Vec::new();
                    flatten(name, &map.next_value::<Value>()?, 1, &mut fields);
                    match self.0.members.iter_mut().find(|(known, _)| *known == name) {
                        Some(member) => member.1 = fields,
                        None => self.0.members.push((name, fields)),
                    }
                }
                Key::Other if !self.0.has_field => map.next_value_seed(Looks(&mut self.0.has_field))?,
                Key::Other | Key::Empty => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

enum Key {
    /// One of the names by which levels are known, or what may have one of them in it.
    Named(&'static str),
    /// Nobody can ask for such a field.
    Empty,
    Other,
}

struct KeySeed;

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = Key;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Key, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed {
    type Value = Key;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }
    fn visit_str<E>(self, key: &str) -> Result<Key, E> {
        let named = LEVEL_FIELDS.iter().chain(&["log"]).find(|name| **name == key);
        Ok(match named {
            Some(name) => Key::Named(name),
            None if key.is_empty() => Key::Empty,
            None => Key::Other,
        })
    }
}

/// Looks whether there is a value that is more than nothing.
struct Looks<'f>(&'f mut bool);

impl<'de> DeserializeSeed<'de> for Looks<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Looks<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        *self.0 = true;
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        *self.0 = true;
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        *self.0 = true;
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        *self.0 = true;
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        *self.0 = true;
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Looks(self.0))?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_key::<IgnoredAny>()?.is_some() {
            map.next_value_seed(Looks(self.0))?;
        }
        Ok(())
    }
}
