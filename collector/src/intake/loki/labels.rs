//! The labels of a stream: `{app="cart", level="warn"}`, or an object of JSON.

use std::borrow::Cow;

use binnacle_model::meaning;
use binnacle_model::push::Pair;

use super::super::Refusal;

/// Labels of one stream, and their lengths in bytes; these are more than what Loki allows by default.
const MAX_LABELS: usize = 64;
const MAX_NAME_BYTES: usize = 1024;
const MAX_VALUE_BYTES: usize = 4096;

/// Labels by which Loki finds the service of a stream that does not say one, the best first.
const SERVICE_LABELS: [&str; 12] = [
    "app",
    "application",
    "app_name",
    "name",
    "app_kubernetes_io_name",
    "container",
    "container_name",
    "k8s_container_name",
    "component",
    "workload",
    "job",
    "k8s_job_name",
];

/// What Loki calls a service of which nothing is known.
const UNKNOWN_SERVICE: &str = "unknown_service";

/// A name and a value.
type Label<'a> = (Cow<'a, str>, Cow<'a, str>);

/// What a stream's labels say.
#[derive(Debug, PartialEq)]
pub(super) struct Stream {
    pub(super) labels: Vec<Pair>,
    /// Kept with each line.
    pub(super) iostream: String,
    /// One of ours, or empty.
    pub(super) level: &'static str,
}

impl Stream {
    /// Of labels in any order.
    pub(super) fn new(pairs: Vec<Label<'_>>) -> Result<Self, Refusal> {
        let mut pairs = pairs;
        pairs.retain(|(_, value)| !value.is_empty());
        check(&pairs)?;
        let value =
            |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.to_string());
        let level = value("detected_level").or_else(|| value("level")).unwrap_or_default();
        let level = meaning::level_named(&level);
        let has_service = value("service").is_some();
        let found = SERVICE_LABELS.iter().find_map(|name| value(name));
        let iostream = value("iostream").unwrap_or_default();
        let has_service_name = value("service_name").is_some();
        let mut labels: Vec<Pair> = Vec::with_capacity(pairs.len() + 1);
        for (name, value) in pairs.into_iter().filter(|(name, _)| name != "iostream") {
            let is_service = name == "service_name" && !has_service;
            let name = if is_service { "service".to_owned() } else { name.into_owned() };
            labels.push(Pair { name, value: value.into_owned() });
        }
        if !has_service && !has_service_name {
            let value = found.unwrap_or_else(|| UNKNOWN_SERVICE.to_owned());
            labels.push(Pair { name: "service".to_owned(), value });
        }
        labels.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        if let Some(twice) = labels.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(Refusal::Bad(format!("stream has duplicate label name: '{}'", twice[0].name)));
        }
        Ok(Self { labels, iostream, level })
    }

    /// Of labels as text, which every stream in protobuf has.
    pub(super) fn parse(text: &str) -> Result<Self, Refusal> {
        let pairs = pairs(text).map_err(|reason| {
            // Of a text that is no list of labels, the beginning tells enough.
            let shown: String = text.chars().take(200).collect();
            Refusal::Bad(format!("error parsing labels '{shown}' with error: {reason}"))
        })?;
        Self::new(pairs)
    }
}

fn check(pairs: &[Label<'_>]) -> Result<(), Refusal> {
    if pairs.is_empty() {
        return Err(Refusal::Bad("error at least one label pair is required per stream".to_owned()));
    }
    if pairs.len() > MAX_LABELS {
        let reason = format!("stream has {} label names; limit {MAX_LABELS}", pairs.len());
        return Err(Refusal::Bad(reason));
    }
    for (name, value) in pairs {
        let shown: String = name.chars().take(50).collect();
        if name.is_empty() {
            return Err(Refusal::Bad("stream has a label without a name".to_owned()));
        }
        if name.len() > MAX_NAME_BYTES {
            return Err(Refusal::Bad(format!("stream has label name too long: '{shown}'")));
        }
        if value.len() > MAX_VALUE_BYTES {
            return Err(Refusal::Bad(format!("stream has label value too long: '{shown}'")));
        }
    }
    Ok(())
}

/// Names and values in `{a="b", c="d"}`.
fn pairs(text: &str) -> Result<Vec<Label<'_>>, &'static str> {
    let mut found = Vec::new();
    let mut rest = text.trim_start().strip_prefix('{').ok_or("a { is missing")?.trim_start();
    while !rest.starts_with('}') {
        if found.len() > MAX_LABELS {
            return Err("too many labels");
        }
        let end = rest.find(|c: char| matches!(c, '=' | '"') || c.is_whitespace()).ok_or("a = is missing")?;
        let (name, behind) =
            if rest.starts_with('"') { quoted(rest)? } else { (rest[..end].into(), &rest[end..]) };
        let value = behind.trim_start().strip_prefix('=').ok_or("a = is missing")?;
        let (value, behind) = quoted(value.trim_start())?;
        found.push((name, value));
        rest = behind.trim_start();
        match rest.strip_prefix(',') {
            Some(behind) => rest = behind.trim_start(),
            None if rest.starts_with('}') => {}
            None => return Err("a , or } is missing"),
        }
    }
    if rest.trim_end() == "}" { Ok(found) } else { Err("there is something behind the }") }
}

/// The text in quotes at the beginning, as Go writes it, and what stands behind it.
fn quoted(text: &str) -> Result<(Cow<'_, str>, &str), &'static str> {
    if let Some(raw) = text.strip_prefix('`') {
        let (inner, rest) = raw.split_once('`').ok_or("a ` is missing")?;
        return Ok((inner.into(), rest));
    }
    let inner = text.strip_prefix('"').ok_or("a \" is missing")?;
    let plain = inner.find(['"', '\\']).ok_or("a \" is missing")?;
    if inner[plain..].starts_with('"') {
        return Ok((inner[..plain].into(), &inner[plain + 1..]));
    }
    let mut out = inner.as_bytes()[..plain].to_vec();
    let mut chars = inner[plain..].char_indices();
    while let Some((at, c)) = chars.next() {
        if c == '"' {
            let text = String::from_utf8_lossy(&out).into_owned();
            return Ok((text.into(), &inner[plain + at + 1..]));
        }
        if c != '\\' {
            out.extend(c.encode_utf8(&mut [0; 4]).bytes());
            continue;
        }
        let kind = chars.next().ok_or("a \" is missing")?.1;
        let mut number = |digits: usize| {
            let hex: String = chars.by_ref().take(digits).map(|(_, c)| c).collect();
            u32::from_str_radix(&hex, 16).map_err(|_| "an unknown escape")
        };
        let c = match kind {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'v' => '\u{b}',
            '"' | '\\' | '\'' => kind,
            'x' => {
                out.push(number(2)? as u8);
                continue;
            }
            'u' => char::from_u32(number(4)?).ok_or("an unknown escape")?,
            'U' => char::from_u32(number(8)?).ok_or("an unknown escape")?,
            _ => return Err("an unknown escape"),
        };
        out.extend(c.encode_utf8(&mut [0; 4]).bytes());
    }
    Err("a \" is missing")
}
