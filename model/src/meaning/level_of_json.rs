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
    if found.is_unsure {
        return Some(super::of(text.as_bytes()).level);
    }
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
    /// The name of that member.
    given_by: String,
    /// Whether a name comes twice where only the first was looked at: of two the last counts.
    is_unsure: bool,
}

struct Members<'f>(&'f mut Found);

impl<'de> Visitor<'de> for Members<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let found = self.0;
        while let Some(key) = map.next_key_seed(KeySeed { found })? {
            match key {
                Key::Named(name) => {
                    let mut fields = Vec::new();
                    flatten(name, &map.next_value::<Value>()?, 1, &mut fields);
                    match found.members.iter_mut().find(|(known, _)| *known == name) {
                        Some(member) => member.1 = fields,
                        None => found.members.push((name, fields)),
                    }
                }
                Key::First(name) => {
                    map.next_value_seed(Looks { found })?;
                    found.given_by = name;
                }
                Key::Again => {
                    found.is_unsure = true;
                    map.next_value::<IgnoredAny>()?;
                }
                Key::Other => {
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
    /// Of a member that may be the first that has a value.
    First(String),
    /// The name of the member that had one.
    Again,
    /// Of nothing that matters. Nobody can ask for a field without a name.
    Other,
}

struct KeySeed<'f> {
    found: &'f Found,
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Key;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Key, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = Key;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }
    fn visit_str<E>(self, key: &str) -> Result<Key, E> {
        if let Some(name) = LEVEL_FIELDS.iter().chain(&["log"]).find(|name| **name == key) {
            return Ok(Key::Named(name));
        }
        Ok(match self.found {
            _ if key.is_empty() => Key::Other,
            Found { has_field: false, .. } => Key::First(key.to_owned()),
            Found { given_by, .. } if given_by == key => Key::Again,
            Found { .. } => Key::Other,
        })
    }
}

/// Looks whether there is a value that is more than nothing.
struct Looks<'f> {
    found: &'f mut Found,
}

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
        self.found.has_field = true;
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        self.found.has_field = true;
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        self.found.has_field = true;
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        self.found.has_field = true;
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        self.found.has_field = true;
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Looks { found: self.found })?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while !self.found.has_field {
            let Some(name) = map.next_key::<String>()? else { return Ok(()) };
            map.next_value_seed(Looks { found: self.found })?;
            if self.found.has_field {
                while let Some(is_again) = map.next_key_seed(IsName(&name))? {
                    self.found.is_unsure |= is_again;
                    map.next_value::<IgnoredAny>()?;
                }
                return Ok(());
            }
        }
        IgnoredAny.visit_map(map)?;
        Ok(())
    }
}

/// Whether a name is this one.
struct IsName<'n>(&'n str);

impl<'de> DeserializeSeed<'de> for IsName<'_> {
    type Value = bool;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<bool, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for IsName<'_> {
    type Value = bool;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }
    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}
