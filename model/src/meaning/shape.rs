//! The fields of messages that differ in some places alone: what is said of one of them holds for all.
//!
//! ```text
//! {"user":"<0>","took":<1>,"msg":"GET <2> done"}     user: what stands in 0
//!                                                     took: the JSON value that stands in 1
//!                                                     msg:  "GET ", 2, " done"
//! ```

use serde_json::Value;

use super::{MAX_FIELDS, MAX_TEXT_BYTES, Raw, bare, is_of_name, json, logfmt_raw, scalar};
use crate::log::FieldValue;

/// Characters that stand for places in text, and numbers that stand for places outside of quotes.
const FIRST_MARK: u32 = 0xe000;
const FIRST_NUMBER: i64 = 9_000_000_000_000_000;

/// Digits with which each of these numbers begins.
const NUMBER_DIGITS: &str = "9000000000000";

/// Places of one message.
const PLACES_MAX: usize = 500;

/// Bytes that may stand in a place.
const PLACE_MAX_BYTES: usize = 256;

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    /// Names and values in the order of the message.
    pub fields: Vec<(String, FieldShape)>,
    /// Places outside of quotes in JSON: a message that has something else there than a scalar has no fields.
    pub scalars: Vec<usize>,
}

/// What a field's value is made of.
#[derive(Debug, Clone, PartialEq)]
pub enum FieldShape {
    /// In all messages the same.
    Fixed(FieldValue),
    /// JSON's scalar in a place; see [`Shape::scalar`].
    Scalar(usize),
    /// Text.
    Quoted(Vec<Part>),
    /// Logfmt's value without quotes; see [`Shape::bare`].
    Bare(Vec<Part>),
}

/// A part of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// As it stands there.
    Text(String),
    /// What stands in a place.
    Place(usize),
}

impl Shape {
    /// The shape of messages of constant pieces with a place between each two. `None` where what stands in the places
    /// decides what the fields are.
    ///
    /// A place holds 256 bytes of UTF-8 at most, with no white space, sign of ASCII or control character but
    /// `_-./+@%#~`; a timestamp may have others, but no quotes.
    pub fn of<'a>(pieces: impl Iterator<Item = &'a [u8]> + Clone) -> Option<Self> {
        let places = pieces.clone().count().checked_sub(1)?;
        let bytes: usize = pieces.clone().map(<[u8]>::len).sum();
        if places > PLACES_MAX || bytes + places * PLACE_MAX_BYTES > 4 * MAX_TEXT_BYTES {
            return None;
        }
        let pieces: Vec<&str> = pieces.map(std::str::from_utf8).collect::<Result<_, _>>().ok()?;
        // Text with marks of its own, or with terminals' codes.
        let is_odd = |c: char| c == '\u{1b}' || (FIRST_MARK..FIRST_MARK + 0x1900).contains(&u32::from(c));
        if pieces.iter().any(|piece| piece.contains(is_odd)) {
            return None;
        }
        let is_json = pieces[0].trim_start().starts_with('{');
        let (text, scalars) = marked(&pieces, is_json)?;
        let fields: Vec<(String, FieldShape)> = if is_json {
            json(text.trim()).into_iter().map(of_json).collect::<Option<_>>()?
        } else {
            // What stands in a place may make a key a name.
            let mut is_open = false;
            let may_be_name = |key: &str| key.chars().all(|c| is_of_name(c) || place_of(c).is_some());
            let fields = logfmt_raw(text.trim(), &mut |key| is_open |= has_mark(key) && may_be_name(key));
            if is_open {
                return None;
            }
            fields.into_iter().map(|(name, value)| (name.to_owned(), of_logfmt(value))).collect()
        };
        let is_short = |shape: &FieldShape| match shape {
            FieldShape::Fixed(_) | FieldShape::Scalar(_) => true,
            FieldShape::Quoted(parts) | FieldShape::Bare(parts) => most_bytes(parts) <= MAX_TEXT_BYTES,
        };
        let is_within = fields.len() < MAX_FIELDS - 1 && fields.iter().all(|(_, shape)| is_short(shape));
        is_within.then_some(Self { fields, scalars })
    }

    /// What the text of a [`FieldShape::Scalar`] says: nothing for `null`. `None` if it is no scalar of JSON.
    pub fn scalar(text: &str) -> Option<Option<FieldValue>> {
        let value: Value = serde_json::from_str(text).ok()?;
        (!value.is_object() && !value.is_array()).then(|| scalar(&value))
    }

    /// What the text of a [`FieldShape::Bare`] says.
    pub fn bare(text: &str) -> FieldValue {
        bare(text)
    }
}

/// The text with marks in the places; and which places are outside of JSON's quotes.
fn marked(pieces: &[&str], is_json: bool) -> Option<(String, Vec<usize>)> {
    let (mut text, mut scalars) = (String::new(), Vec::new());
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, piece) in pieces.iter().enumerate() {
        text.push_str(piece);
        for byte in piece.bytes() {
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' => is_escaped = true,
                b'"' => is_quoted = !is_quoted,
                _ => {}
            }
        }
        if at + 1 == pieces.len() {
            break;
        }
        if is_escaped || piece.ends_with('\\') {
            // The first character in the place belongs to the escape.
            return None;
        }
        if is_json && !is_quoted {
            scalars.push(at);
            text.push_str(&(FIRST_NUMBER + at as i64).to_string());
        } else {
            text.push(char::from_u32(FIRST_MARK + at as u32)?);
        }
    }
    Some((text, scalars))
}

fn most_bytes(parts: &[Part]) -> usize {
    let of_part = |part: &Part| match part {
        Part::Text(text) => text.len(),
        Part::Place(_) => PLACE_MAX_BYTES,
    };
    parts.iter().map(of_part).sum()
}

fn has_mark(text: &str) -> bool {
    text.contains(|c| place_of(c).is_some()) || text.contains(NUMBER_DIGITS)
}

fn place_of(c: char) -> Option<usize> {
    let place = u32::from(c).checked_sub(FIRST_MARK)? as usize;
    (place < PLACES_MAX).then_some(place)
}

fn of_json((name, value): (String, FieldValue)) -> Option<(String, FieldShape)> {
    if has_mark(&name) {
        return None;
    }
    let shape = match value {
        FieldValue::Int(number) if number >= FIRST_NUMBER => {
            FieldShape::Scalar(usize::try_from(number - FIRST_NUMBER).ok().filter(|at| *at < PLACES_MAX)?)
        }
        // A structure too deep to be taken apart.
        FieldValue::Text(text) if text.contains(NUMBER_DIGITS) => return None,
        FieldValue::Text(text) if has_mark(&text) => FieldShape::Quoted(parts(&text)),
        value => FieldShape::Fixed(value),
    };
    Some((name, shape))
}

fn of_logfmt(value: Raw<'_>) -> FieldShape {
    match value {
        Raw::Quoted(text) if has_mark(&text) => FieldShape::Quoted(parts(&text)),
        Raw::Bare(text) if has_mark(text) => FieldShape::Bare(parts(text)),
        value => FieldShape::Fixed(value.typed()),
    }
}

fn parts(text: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    for c in text.chars() {
        match (place_of(c), parts.last_mut()) {
            (Some(place), _) => parts.push(Part::Place(place)),
            (None, Some(Part::Text(text))) => text.push(c),
            (None, _) => parts.push(Part::Text(c.to_string())),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::meaning::fields;

    /// The fields as the shape has them, for what stands in the places.
    fn made(shape: &Shape, places: &[&str]) -> Vec<(String, FieldValue)> {
        if shape.scalars.iter().any(|at| Shape::scalar(places[*at]).is_none()) {
            return Vec::new();
        }
        let text = |parts: &[Part]| -> String {
            let text = |part: &Part| match part {
                Part::Text(text) => text.clone(),
                Part::Place(at) => places[*at].to_owned(),
            };
            parts.iter().map(text).collect()
        };
        let value = |shape: &FieldShape| match shape {
            FieldShape::Fixed(value) => Some(value.clone()),
            FieldShape::Scalar(at) => Shape::scalar(places[*at]).flatten(),
            FieldShape::Quoted(parts) => Some(FieldValue::Text(text(parts))),
            FieldShape::Bare(parts) => Some(Shape::bare(&text(parts))),
        };
        shape.fields.iter().filter_map(|(name, shape)| Some((name.clone(), value(shape)?))).collect()
    }

    /// What may stand before the first place, and behind one: there it begins with what no place may hold.
    fn piece() -> impl Strategy<Value = String> {
        let json = [
            r#""}"#,
            "}",
            r#"","b":"#,
            r#","b":""#,
            r#"],"d":{"e":""#,
            r#""}}"#,
            r#"","x":true,"y":"\n "#,
            " and ",
            r"\",
            ":",
            r#"""#,
            ",",
            " ",
            "{",
            "[",
            "]",
            r#",null,"c":[1,"#,
        ];
        let logfmt =
            [" b=", r#" c=""#, r#"" d="#, r#" x=1 y="q\""#, r#" msg="a "#, " é ", "(x=", ", level=info "];
        let signs = "[ !\"$&'(),:;<>?\\[\\\\\\]^`{|}=][ -~]{0,3}";
        prop_oneof![
            4 => prop::sample::select(json.to_vec()).prop_map(str::to_owned),
            4 => prop::sample::select(logfmt.to_vec()).prop_map(str::to_owned),
            1 => signs.prop_filter("a place before an equals sign is a key", |text| !text.starts_with('=')),
        ]
    }

    fn first() -> impl Strategy<Value = String> {
        let known = [r#"{"a":""#, r#"{"a":"#, "a=", "", " ", "level=info a=", r#"{"a":{"b":["#, "x="];
        prop_oneof![4 => prop::sample::select(known.to_vec()).prop_map(str::to_owned), 1 => piece()]
    }

    fn place() -> impl Strategy<Value = String> {
        let known = [
            "1",
            "-5",
            "1.50",
            "007",
            "true",
            "null",
            "false",
            "1e5",
            "1e999",
            "abc-7",
            "-0",
            "a.b",
            "é",
            "n1",
            "u0041",
            "12345678901234567",
        ];
        prop_oneof![prop::sample::select(known.to_vec()).prop_map(str::to_owned), "[a-z0-9_./+@%#~-]{1,6}"]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8192))]

        #[test]
        fn the_shape_says_what_each_message_says(
            first in first(),
            rest in prop::collection::vec((place(), piece()), 0..5),
        ) {
            let pieces = std::iter::once(&first).chain(rest.iter().map(|(_, piece)| piece));
            let pieces: Vec<&[u8]> = pieces.map(String::as_bytes).collect();
            if let Some(shape) = Shape::of(pieces.iter().copied()) {
                let behind = rest.iter().flat_map(|(place, piece)| [place.as_str(), piece.as_str()]);
                let message: String = std::iter::once(first.as_str()).chain(behind).collect();
                let places: Vec<&str> = rest.iter().map(|(place, _)| place.as_str()).collect();
                prop_assert_eq!(made(&shape, &places), fields(message.as_bytes()), "{} of {:?}", message, shape);
            }
        }
    }

    #[test]
    fn places_are_found_where_they_are() {
        let pieces: [&[u8]; 4] = [b"{\"user\":\"", b"\",\"took\":", b",\"msg\":\"GET ", b" done\"}"];
        let shape = Shape::of(pieces.into_iter()).unwrap();
        assert_eq!(shape.scalars, [1]);
        let text = |text: &str| Part::Text(text.to_owned());
        let wanted = [
            ("user", FieldShape::Quoted(vec![Part::Place(0)])),
            ("took", FieldShape::Scalar(1)),
            ("msg", FieldShape::Quoted(vec![text("GET "), Part::Place(2), text(" done")])),
        ];
        assert_eq!(shape.fields, wanted.map(|(name, shape)| (name.to_owned(), shape)));
        let pieces: [&[u8]; 3] = [b"a=", b" b=x-", b" c=1"];
        let shape = Shape::of(pieces.into_iter()).unwrap();
        assert_eq!(shape.fields[1].1, FieldShape::Bare(vec![text("x-"), Part::Place(1)]));
        assert_eq!(shape.fields[2].1, FieldShape::Fixed(FieldValue::Int(1)));
    }
}
