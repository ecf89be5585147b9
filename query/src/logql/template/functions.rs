//! The functions of templates.

use std::borrow::Cow;
use std::cmp::Ordering;

use binnacle_model::regexes::unanchored;

use super::super::row::Row;
use super::super::units;
use super::{MAX_BYTES, Value};

/// Names, and how many arguments each takes at least and at most.
pub(super) const FUNCTIONS: [(&str, usize, usize); 79] = [
    ("__line__", 0, 0),
    ("__timestamp__", 0, 0),
    ("Replace", 4, 4),
    ("Title", 1, 1),
    ("ToLower", 1, 1),
    ("ToUpper", 1, 1),
    ("Trim", 2, 2),
    ("TrimLeft", 2, 2),
    ("TrimPrefix", 2, 2),
    ("TrimRight", 2, 2),
    ("TrimSpace", 1, 1),
    ("TrimSuffix", 2, 2),
    ("add", 2, usize::MAX),
    ("addf", 2, usize::MAX),
    ("alignLeft", 2, 2),
    ("alignRight", 2, 2),
    ("and", 1, usize::MAX),
    ("b64dec", 1, 1),
    ("b64enc", 1, 1),
    ("bytes", 1, 1),
    ("ceil", 1, 1),
    ("contains", 2, 2),
    ("count", 2, 2),
    ("default", 2, 2),
    ("div", 2, 2),
    ("divf", 2, usize::MAX),
    ("duration", 1, 1),
    ("duration_seconds", 1, 1),
    ("eq", 2, usize::MAX),
    ("float64", 1, 1),
    ("floor", 1, 1),
    ("ge", 2, 2),
    ("gt", 2, 2),
    ("hasPrefix", 2, 2),
    ("hasSuffix", 2, 2),
    ("html", 1, 1),
    ("indent", 2, 2),
    ("int", 1, 1),
    ("js", 1, 1),
    ("le", 2, 2),
    ("len", 1, 1),
    ("lower", 1, 1),
    ("lt", 2, 2),
    ("max", 1, usize::MAX),
    ("maxf", 1, usize::MAX),
    ("min", 1, usize::MAX),
    ("minf", 1, usize::MAX),
    ("mod", 2, 2),
    ("mul", 2, usize::MAX),
    ("mulf", 2, usize::MAX),
    ("ne", 2, 2),
    ("nindent", 2, 2),
    ("not", 1, 1),
    ("or", 1, usize::MAX),
    ("print", 0, usize::MAX),
    ("printf", 1, usize::MAX),
    ("println", 0, usize::MAX),
    ("regexReplaceAll", 3, 3),
    ("regexReplaceAllLiteral", 3, 3),
    ("repeat", 2, 2),
    ("replace", 3, 3),
    ("round", 1, 2),
    ("sub", 2, 2),
    ("subf", 2, usize::MAX),
    ("substr", 3, 3),
    ("title", 1, 1),
    ("trim", 1, 1),
    ("trimAll", 2, 2),
    ("trimPrefix", 2, 2),
    ("trimSuffix", 2, 2),
    ("trunc", 2, 2),
    ("unixEpoch", 1, 1),
    ("unixEpochMillis", 1, 1),
    ("unixEpochNanos", 1, 1),
    ("unixToTime", 1, 1),
    ("upper", 1, 1),
    ("urldecode", 1, 1),
    ("urlencode", 1, 1),
    ("urlquery", 1, 1),
];

/// The function of that name.
pub(super) fn function(name: &str) -> Option<&'static str> {
    FUNCTIONS.iter().find(|(known, ..)| *known == name).map(|(known, ..)| *known)
}

/// Calls a function with its arguments, of which there may be too few or too many.
pub(super) fn call(name: &'static str, args: &[Value], row: &Row<'_>) -> Result<Value, String> {
    let (_, least, most) =
        FUNCTIONS.iter().find(|(known, ..)| *known == name).copied().unwrap_or((name, 0, 0));
    if !(least..=most).contains(&args.len()) {
        return Err(format!("wrong number of args for {name}: want {least} got {}", args.len()));
    }
    if let Some(value) = of_numbers(name, args)? {
        return Ok(value);
    }
    if let Some(value) = of_values(name, args, row)? {
        return Ok(value);
    }
    of_texts(name, args).map(Value::Text)
}

fn of_numbers(name: &str, args: &[Value]) -> Result<Option<Value>, String> {
    let ints = |fold: fn(i64, i64) -> i64| {
        let all = args.iter().map(Value::int).reduce(fold);
        Value::Int(all.unwrap_or(0))
    };
    let floats = |fold: fn(f64, f64) -> f64| {
        let all = args.iter().map(Value::float).reduce(fold);
        Value::Float(all.unwrap_or(0.0))
    };
    Ok(Some(match name {
        "add" => ints(i64::wrapping_add),
        "sub" => ints(i64::wrapping_sub),
        "mul" => ints(i64::wrapping_mul),
        "div" | "mod" if args[1].int() == 0 => return Err("runtime error: integer divide by zero".to_owned()),
        "div" => ints(i64::wrapping_div),
        "mod" => ints(i64::wrapping_rem),
        "max" => ints(i64::max),
        "min" => ints(i64::min),
        "addf" => floats(|a, b| a + b),
        "subf" => floats(|a, b| a - b),
        "mulf" => floats(|a, b| a * b),
        "divf" => floats(|a, b| a / b),
        "maxf" => floats(f64::max),
        "minf" => floats(f64::min),
        "ceil" => Value::Float(args[0].float().ceil()),
        "floor" => Value::Float(args[0].float().floor()),
        "round" => {
            let unit = 10f64.powi(args.get(1).map_or(0, Value::int).clamp(0, 15) as i32);
            Value::Float((args[0].float() * unit).round() / unit)
        }
        "int" => Value::Int(args[0].int()),
        "float64" => Value::Float(args[0].float()),
        "bytes" => Value::Float(units::bytes(&args[0].text()).ok_or_else(|| no_unit("size", &args[0]))?),
        "duration" | "duration_seconds" => {
            let ns = units::duration_ns(&args[0].text()).ok_or_else(|| no_unit("duration", &args[0]))?;
            Value::Float(ns / 1e9)
        }
        _ => return Ok(None),
    }))
}

fn no_unit(what: &str, value: &Value) -> String {
    format!("{:?} is no {what}", value.text())
}

/// Functions that take values of any kind, or look at the line.
fn of_values(name: &str, args: &[Value], row: &Row<'_>) -> Result<Option<Value>, String> {
    let truth = Value::Bool;
    let nanos = || match &args[0] {
        Value::Int(ns) => *ns,
        other => other.int(),
    };
    Ok(Some(match name {
        "__line__" => Value::Text(row.text().into_owned()),
        // A moment is its nanoseconds here; the functions behind it divide.
        "__timestamp__" => Value::Int(row.entry().time.0),
        "unixEpochNanos" => Value::Text(nanos().to_string()),
        "unixEpochMillis" => Value::Text((nanos() / 1_000_000).to_string()),
        "unixEpoch" => Value::Text((nanos() / 1_000_000_000).to_string()),
        "unixToTime" => {
            // By the number of digits, as in Loki: seconds, milliseconds, microseconds, nanoseconds.
            let number = args[0].int();
            let unit = match args[0].text().len() {
                ..=11 => 1_000_000_000,
                12..=14 => 1_000_000,
                15..=17 => 1_000,
                _ => 1,
            };
            Value::Int(number.saturating_mul(unit))
        }
        "eq" => truth(args[1..].iter().any(|other| compared(&args[0], other) == Some(Ordering::Equal))),
        "ne" => truth(compared(&args[0], &args[1]) != Some(Ordering::Equal)),
        "lt" => truth(compared(&args[0], &args[1]) == Some(Ordering::Less)),
        "gt" => truth(compared(&args[0], &args[1]) == Some(Ordering::Greater)),
        "le" => truth(matches!(compared(&args[0], &args[1]), Some(Ordering::Less | Ordering::Equal))),
        "ge" => truth(matches!(compared(&args[0], &args[1]), Some(Ordering::Greater | Ordering::Equal))),
        "not" => truth(!args[0].is_true()),
        "and" => args.iter().find(|arg| !arg.is_true()).or(args.last()).cloned().unwrap_or(truth(true)),
        "or" => args.iter().find(|arg| arg.is_true()).or(args.last()).cloned().unwrap_or(truth(false)),
        "default" => if args[1].is_true() { &args[1] } else { &args[0] }.clone(),
        "len" => Value::Int(args[0].text().len() as i64),
        "contains" => truth(args[1].text().contains(&args[0].text())),
        "hasPrefix" => truth(args[1].text().starts_with(&args[0].text())),
        "hasSuffix" => truth(args[1].text().ends_with(&args[0].text())),
        "count" => {
            let regex = regex(&args[0].text())?;
            Value::Int(regex.find_iter(args[1].text().as_bytes()).count() as i64)
        }
        _ => return Ok(None),
    }))
}

/// Numbers by their size, texts by their bytes; a number and a text as numbers.
fn compared(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Text(left), Value::Text(right)) => Some(left.cmp(right)),
        (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
        _ => left.float().partial_cmp(&right.float()),
    }
}

/// Compiled for each line: Loki does it, too, and the size is bounded.
fn regex(pattern: &str) -> Result<regex::bytes::Regex, String> {
    unanchored(pattern, 1 << 18).map_err(|reason| format!("error parsing regexp: {reason}"))
}

fn of_texts(name: &str, args: &[Value]) -> Result<String, String> {
    let text = |at: usize| -> Cow<'_, str> {
        match args.get(at) {
            Some(Value::Text(text)) => Cow::Borrowed(text),
            Some(other) => Cow::Owned(other.text()),
            None => Cow::Borrowed(""),
        }
    };
    let set = |at: usize| text(at).chars().collect::<Vec<char>>();
    Ok(match name {
        "ToLower" | "lower" => text(0).to_lowercase(),
        "ToUpper" | "upper" => text(0).to_uppercase(),
        "Title" | "title" => titled(&text(0)),
        "TrimSpace" | "trim" => text(0).trim().to_owned(),
        "Trim" => text(0).trim_matches(&set(1)[..]).to_owned(),
        "TrimLeft" => text(0).trim_start_matches(&set(1)[..]).to_owned(),
        "TrimRight" => text(0).trim_end_matches(&set(1)[..]).to_owned(),
        "trimAll" => text(1).trim_matches(&set(0)[..]).to_owned(),
        "TrimPrefix" => text(0).strip_prefix(&*text(1)).unwrap_or(&text(0)).to_owned(),
        "TrimSuffix" => text(0).strip_suffix(&*text(1)).unwrap_or(&text(0)).to_owned(),
        "trimPrefix" => text(1).strip_prefix(&*text(0)).unwrap_or(&text(1)).to_owned(),
        "trimSuffix" => text(1).strip_suffix(&*text(0)).unwrap_or(&text(1)).to_owned(),
        "Replace" => {
            let most = usize::try_from(args[3].int()).unwrap_or(usize::MAX);
            bounded_replace(&text(0), &text(1), &text(2), most)?
        }
        "replace" => bounded_replace(&text(2), &text(0), &text(1), usize::MAX)?,
        "regexReplaceAll" => replace_all(&text(0), &text(1), &text(2), false)?,
        "regexReplaceAllLiteral" => replace_all(&text(0), &text(1), &text(2), true)?,
        "repeat" => {
            let (times, text) = (usize::try_from(args[0].int()).unwrap_or(0), text(1));
            if times.saturating_mul(text.len()) > MAX_BYTES {
                return Err(format!("repeat makes more than {MAX_BYTES} bytes"));
            }
            text.repeat(times)
        }
        "trunc" => {
            let (most, text) = (args[0].int(), text(1));
            let count = text.chars().count();
            match usize::try_from(most) {
                Ok(most) => text.chars().take(most).collect(),
                Err(_) => text.chars().skip(count.saturating_sub(most.unsigned_abs() as usize)).collect(),
            }
        }
        "substr" => {
            let (start, end, text) = (args[0].int().max(0) as usize, args[1].int(), text(2));
            let end = usize::try_from(end).unwrap_or(usize::MAX);
            text.chars().skip(start).take(end.saturating_sub(start)).collect()
        }
        "alignLeft" | "alignRight" => aligned(&text(1), args[0].int(), name == "alignRight"),
        "indent" | "nindent" => {
            let pad = " ".repeat(args[0].int().clamp(0, 256) as usize);
            let line = format!("{pad}{}", bounded_replace(&text(1), "\n", &format!("\n{pad}"), usize::MAX)?);
            if name == "nindent" { format!("\n{line}") } else { line }
        }
        "urlencode" | "urlquery" => form_urlencoded::byte_serialize(text(0).as_bytes()).collect(),
        "urldecode" => {
            let pair = format!("={}", text(0));
            let decoded = form_urlencoded::parse(pair.as_bytes()).next().map(|(_, value)| value.into_owned());
            decoded.unwrap_or_default()
        }
        "b64enc" => base64_encode(text(0).as_bytes()),
        "b64dec" => base64_decode(&text(0)).ok_or("illegal base64 data")?,
        "html" | "js" => text(0).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;"),
        "printf" => printf(&text(0), &args[1..])?,
        "print" => args.iter().map(Value::text).collect(),
        "println" => args.iter().map(Value::text).collect::<Vec<_>>().join(" ") + "\n",
        _ => return Err(format!("function {name:?} not defined")),
    })
}

fn titled(text: &str) -> String {
    let mut is_start = true;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_start {
            out.extend(c.to_uppercase());
        } else {
            out.push(c);
        }
        is_start = c.is_whitespace();
    }
    out
}

fn bounded_replace(text: &str, from: &str, to: &str, most: usize) -> Result<String, String> {
    let times = if from.is_empty() { text.chars().count() + 1 } else { text.matches(from).count() }.min(most);
    if times.saturating_mul(to.len()).saturating_add(text.len()) > MAX_BYTES {
        return Err(format!("replace makes more than {MAX_BYTES} bytes"));
    }
    Ok(text.replacen(from, to, times))
}

fn replace_all(pattern: &str, text: &str, to: &str, literal: bool) -> Result<String, String> {
    let regex = regex(pattern)?;
    let found = regex.find_iter(text.as_bytes()).count();
    if found.saturating_mul(to.len() + text.len()) > 64 * MAX_BYTES {
        return Err(format!("replace makes more than {MAX_BYTES} bytes"));
    }
    let replaced = if literal {
        regex.replace_all(text.as_bytes(), regex::bytes::NoExpand(to.as_bytes()))
    } else {
        regex.replace_all(text.as_bytes(), to.as_bytes())
    };
    Ok(String::from_utf8_lossy(&replaced).into_owned())
}

/// Cut or filled with spaces to a width.
fn aligned(text: &str, width: i64, right: bool) -> String {
    let width = width.clamp(0, 1024) as usize;
    let count = text.chars().count();
    let pad = " ".repeat(width.saturating_sub(count));
    match (right, count > width) {
        (true, true) => text.chars().skip(count - width).collect(),
        (false, true) => text.chars().take(width).collect(),
        (true, false) => pad + text,
        (false, false) => text.to_owned() + &pad,
    }
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64_encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let digit = BASE64[(word >> (18 - 6 * at)) as usize & 63];
            out.push(if at <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

fn base64_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut word, mut bits) = (0u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let digit = BASE64.iter().position(|known| *known == byte)?;
        word = word << 6 | digit as u32;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((word >> bits) as u8);
            word &= (1 << bits) - 1;
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// `%s %v %q %d %f %.2f %t %x %%`, with a width and a minus sign.
fn printf(format: &str, args: &[Value]) -> Result<String, String> {
    let mut out = String::new();
    let mut args = args.iter();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let length =
            rest.bytes().take_while(|b| b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'+')).count();
        let (spec, behind) = rest.split_at(length);
        let Some(verb) = behind.chars().next() else {
            out.push_str("%!(NOVERB)");
            return Ok(out);
        };
        rest = &behind[verb.len_utf8()..];
        if verb == '%' {
            out.push('%');
            continue;
        }
        let Some(value) = args.next() else {
            out.push_str(&format!("%!{verb}(MISSING)"));
            continue;
        };
        out.push_str(&formatted(spec, verb, value));
        if out.len() > MAX_BYTES {
            return Err(format!("printf makes more than {MAX_BYTES} bytes"));
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn formatted(spec: &str, verb: char, value: &Value) -> String {
    let (width, precision) =
        spec.split_once('.').map_or((spec, None), |(width, digits)| (width, Some(digits)));
    let precision = precision.map(|digits| digits.parse().unwrap_or(0).min(64usize));
    let (left, zero) = (width.starts_with('-'), width.starts_with('0'));
    let width = width.trim_start_matches(['-', '+', '0']).parse().unwrap_or(0usize).min(1024);
    let text = match verb {
        'd' => value.int().to_string(),
        'f' | 'F' => format!("{:.*}", precision.unwrap_or(6), value.float()),
        'x' => format!("{:x}", value.int()),
        'q' => binnacle_model::labels::quoted(&value.text()),
        's' | 'v' | 't' | 'g' => match precision {
            Some(most) if verb == 's' => value.text().chars().take(most).collect(),
            _ => value.text(),
        },
        other => return format!("%!{other}({})", value.text()),
    };
    let missing = width.saturating_sub(text.chars().count());
    match (left, zero && matches!(verb, 'd' | 'f' | 'x')) {
        (true, _) => text + &" ".repeat(missing),
        (false, true) => "0".repeat(missing) + &text,
        (false, false) => " ".repeat(missing) + &text,
    }
}
