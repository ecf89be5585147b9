//! `{"streams":[{"stream":{"app":"cart"},"values":[["1700000000000000000","line",{"trace_id":"1"}]]}]}`
//!
//! Texts are borrowed from the body until a line is made of them.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;

use binnacle_model::push::{PushField, PushValue};
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use super::super::Refusal;
use super::labels::Stream;
use super::{Batch, Budget, Line, Pushed, TOO_MANY};

/// Reads a body.
pub(super) fn read(body: &[u8]) -> Result<Pushed, Refusal> {
    // What is refused for another reason than JSON's comes out here.
    let state = RefCell::new(State { budget: Budget::new(), pushed: Pushed::default(), refusal: None });
    let mut reader = serde_json::Deserializer::from_slice(body);
    let done = reader.deserialize_map(Body(&state)).and_then(|()| reader.end());
    let state = state.into_inner();
    if let Some(refusal) = state.refusal {
        return Err(refusal);
    }
    done.map_err(|error| Refusal::Bad(format!("couldn't parse push request: {error}")))?;
    Ok(state.pushed)
}

struct State {
    budget: Budget,
    pushed: Pushed,
    refusal: Option<Refusal>,
}

impl State {
    fn take<E: Error>(&mut self) -> Result<(), E> {
        if self.budget.take() {
            return Ok(());
        }
        self.refuse(Refusal::TooLarge(TOO_MANY.to_owned()))
    }

    fn refuse<T, E: Error>(&mut self, refusal: Refusal) -> Result<T, E> {
        self.refusal = Some(refusal);
        Err(E::custom("refused"))
    }
}

type Shared<'s> = &'s RefCell<State>;

/// Text, borrowed where nothing in it is escaped. What is not UTF-8 is replaced, as by Go.
struct Text<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(Self(match Bytes::deserialize(from)?.0 {
            Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
            Cow::Owned(bytes) => match String::from_utf8(bytes) {
                Ok(text) => Cow::Owned(text),
                Err(error) => Cow::Owned(String::from_utf8_lossy(error.as_bytes()).into_owned()),
            },
        }))
    }
}

/// The bytes of a text as they are sent, which JSON does not allow and programs do, with a replacement character in place
/// of half a pair of escapes.
struct Bytes<'de>(Cow<'de, [u8]>);

impl<'de> Deserialize<'de> for Bytes<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Bytes<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_bytes<E: Error>(self, bytes: &'de [u8]) -> Result<Bytes<'de>, E> {
                Ok(Bytes(Cow::Borrowed(bytes)))
            }
            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Bytes<'de>, E> {
                Ok(Bytes(Cow::Owned(without_surrogates(bytes))))
            }
        }
        from.deserialize_bytes(Read)
    }
}

/// The reader of JSON makes three bytes of half a pair, which no UTF-8 has.
fn without_surrogates(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    if std::str::from_utf8(bytes).is_err() {
        for at in 0..bytes.len().saturating_sub(2) {
            if let [0xed, 0xa0..=0xbf, 0x80..=0xbf] = bytes[at..at + 3] {
                out[at..at + 3].copy_from_slice("\u{fffd}".as_bytes());
            }
        }
    }
    out
}

/// The whole of it.
struct Body<'s>(Shared<'s>);

impl<'de> Visitor<'de> for Body<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with streams")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Text<'de>>()? {
            if key.0 == "streams" {
                map.next_value_seed(Streams(self.0))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

struct Streams<'s>(Shared<'s>);

impl<'de> DeserializeSeed<'de> for Streams<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Streams<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of streams")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(OneStream(self.0))?.is_some() {}
        Ok(())
    }
}

struct OneStream<'s>(Shared<'s>);

impl<'de> DeserializeSeed<'de> for OneStream<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for OneStream<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a stream with its values")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.0.borrow_mut().take()?;
        let mut labels = Vec::new();
        let mut lines = Vec::new();
        while let Some(key) = map.next_key::<Text<'de>>()? {
            match &*key.0 {
                "stream" => labels = map.next_value_seed(Pairs(self.0))?,
                "values" => lines = map.next_value_seed(Values(self.0))?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        if lines.is_empty() {
            return Ok(());
        }
        let mut state = self.0.borrow_mut();
        match Stream::new(labels) {
            Ok(stream) => {
                let mut batch = Batch::new(stream);
                batch.entries.reserve_exact(lines.len());
                for (time_ns, text, metadata) in lines {
                    batch.push(Line { time_ns, text: &text, metadata });
                }
                batch.finish(&mut state.pushed.push);
                Ok(())
            }
            Err(refusal) => match state.pushed.refuse(refusal) {
                Ok(()) => Ok(()),
                Err(refusal) => state.refuse(refusal),
            },
        }
    }
}

/// An object of texts.
struct Pairs<'s>(Shared<'s>);

type Pair<'de> = (Cow<'de, str>, Cow<'de, str>);

impl<'de> DeserializeSeed<'de> for Pairs<'_> {
    type Value = Vec<Pair<'de>>;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Pairs<'_> {
    type Value = Vec<Pair<'de>>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some((name, value)) = map.next_entry::<Text<'de>, Text<'de>>()? {
            self.0.borrow_mut().take()?;
            pairs.push((name.0, value.0));
        }
        Ok(pairs)
    }
}

struct Values<'s>(Shared<'s>);

type Value<'de> = (i64, Cow<'de, [u8]>, Vec<PushField>);

impl<'de> DeserializeSeed<'de> for Values<'_> {
    type Value = Vec<Value<'de>>;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Values<'_> {
    type Value = Vec<Value<'de>>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of values")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut found = Vec::new();
        while let Some(value) = list.next_element_seed(OneValue(self.0))? {
            found.push(value);
        }
        Ok(found)
    }
}

/// `["time", "line", {metadata}]`
struct OneValue<'s>(Shared<'s>);

impl<'de> DeserializeSeed<'de> for OneValue<'_> {
    type Value = Value<'de>;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for OneValue<'_> {
    type Value = Value<'de>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of a time, a line and perhaps metadata")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        self.0.borrow_mut().take()?;
        let time: Text<'de> = list.next_element()?.ok_or_else(|| A::Error::invalid_length(0, &self))?;
        let line: Bytes<'de> = list.next_element()?.ok_or_else(|| A::Error::invalid_length(1, &self))?;
        let time_ns = time.0.parse().map_err(|_| {
            let shown: String = time.0.chars().take(30).collect();
            A::Error::custom(format!("strconv.ParseInt: parsing {shown:?}: invalid syntax"))
        })?;
        let metadata = list.next_element_seed(Pairs(self.0))?.unwrap_or_default();
        while list.next_element::<IgnoredAny>()?.is_some() {}
        let fields = metadata.into_iter().filter(|(name, value)| !name.is_empty() && !value.is_empty());
        let fields = fields.map(|(name, value)| PushField {
            name: name.into_owned(),
            value: Some(PushValue::Text(value.into_owned())),
        });
        Ok((time_ns, line.0, fields.collect()))
    }
}
