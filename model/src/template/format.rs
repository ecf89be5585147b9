//! Go's `fmt`: `print`, `println`, `printf`, and how values look in them.

use std::fmt::Write;

use super::value::Value;

/// Widest padding and most digits that a verb may ask for.
const MAX_WIDTH: usize = 4096;

/// `%v`
pub(super) fn plain(value: &Value) -> String {
    one('v', &Flags::default(), value)
}

/// Values with blanks between those that are no texts.
pub(super) fn print(args: &[Value]) -> String {
    let mut out = String::new();
    for (at, arg) in args.iter().enumerate() {
        let is_text = |value: &Value| value.as_text().is_some();
        if at > 0 && !is_text(arg) && !is_text(&args[at - 1]) {
            out.push(' ');
        }
        out.push_str(&plain(arg));
    }
    out
}

/// Values with blanks between them, and the end of the line.
pub(super) fn println(args: &[Value]) -> String {
    let shown: Vec<String> = args.iter().map(plain).collect();
    shown.join(" ") + "\n"
}

#[derive(Debug, Default, Clone)]
struct Flags {
    /// Of `+-# 0`.
    signs: String,
    width: usize,
    precision: Option<usize>,
}

impl Flags {
    fn has(&self, sign: char) -> bool {
        self.signs.contains(sign)
    }
}

/// A format with its verbs replaced; what is wrong with it is shown in their place.
pub(super) fn printf(format: &str, args: &[Value]) -> String {
    let mut out = String::new();
    let mut args = args.iter();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let mut flags = Flags::default();
        let behind = rest.trim_start_matches(['+', '-', '#', ' ', '0']);
        rest[..rest.len() - behind.len()].clone_into(&mut flags.signs);
        rest = behind;
        if let Some(width) = size(&mut rest, &mut args, &mut out, "WIDTH") {
            flags.signs.push_str(if width < 0 { "-" } else { "" });
            flags.width = (width.unsigned_abs() as usize).min(MAX_WIDTH);
        }
        if let Some(behind) = rest.strip_prefix('.') {
            rest = behind;
            let found = size(&mut rest, &mut args, &mut out, "PREC").unwrap_or(0);
            flags.precision = usize::try_from(found).ok().map(|found| found.min(MAX_WIDTH));
        }
        let Some(verb) = rest.chars().next() else {
            out.push_str("%!(NOVERB)");
            break;
        };
        rest = &rest[verb.len_utf8()..];
        if verb == '%' {
            out.push('%');
            continue;
        }
        match args.next() {
            None => {
                let _ = write!(out, "%!{verb}(MISSING)");
            }
            Some(arg) => out.push_str(&one(verb, &flags, arg)),
        }
    }
    out.push_str(rest);
    let extra: Vec<String> = args.map(typed).collect();
    if !extra.is_empty() {
        let _ = write!(out, "%!(EXTRA {})", extra.join(", "));
    }
    out
}

/// A width or a precision: digits, or `*` for the next argument.
fn size(
    rest: &mut &str,
    args: &mut std::slice::Iter<'_, Value>,
    out: &mut String,
    what: &str,
) -> Option<i64> {
    if let Some(behind) = rest.strip_prefix('*') {
        *rest = behind;
        if let Some(Value::Int(size)) = args.next() {
            return Some(*size);
        }
        let _ = write!(out, "%!(BAD{what})");
        return None;
    }
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, behind) = rest.split_at(end);
    *rest = behind;
    digits.parse().ok().or((!digits.is_empty()).then_some(MAX_WIDTH as i64))
}

/// `int=1`, as complaints show a value.
fn typed(value: &Value) -> String {
    match value {
        Value::Missing | Value::Nil => "<nil>".to_owned(),
        other => format!("{}={}", other.type_name(), plain(other)),
    }
}

fn bad(verb: char, value: &Value) -> String {
    format!("%!{verb}({})", typed(value))
}

/// A value by a verb.
fn one(verb: char, flags: &Flags, value: &Value) -> String {
    if verb == 'T' {
        return pad(value.type_name().to_owned(), flags);
    }
    let is_text = matches!(verb, 'v' | 's' | 'q' | 'x' | 'X') && !(flags.has('#') && verb == 'v');
    if let Some(text) = value.own_text().filter(|_| is_text) {
        return text_by(verb, flags, &text).unwrap_or_default();
    }
    match value {
        Value::Missing | Value::Nil if verb == 'v' => pad("<nil>".to_owned(), flags),
        Value::Bool(truth) if matches!(verb, 'v' | 't') => pad(truth.to_string(), flags),
        Value::Int(number) | Value::Duration(number) => {
            integer(verb, flags, *number).unwrap_or_else(|| bad(verb, value))
        }
        Value::Float(number) => float(verb, flags, *number).unwrap_or_else(|| bad(verb, value)),
        Value::Text(text) | Value::Safe(_, text) => {
            text_by(verb, flags, text).unwrap_or_else(|| bad(verb, value))
        }
        Value::List(_, items) => {
            let items: Vec<String> = items.iter().map(|item| one(verb, flags, item)).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Map(_, entries) => {
            let key = |key: &str| text_by(verb, flags, key).unwrap_or_else(|| bad(verb, &Value::from(key)));
            let pairs =
                entries.iter().map(|(name, value)| format!("{}:{}", key(name), one(verb, flags, value)));
            format!("map[{}]", pairs.collect::<Vec<_>>().join(" "))
        }
        Value::Struct(kind, fields) => {
            let field = |(name, value): &(&str, Value)| {
                let value = one(verb, flags, value);
                if flags.has('+') { format!("{name}:{value}") } else { value }
            };
            let fields: Vec<String> = fields.iter().map(field).collect();
            // What is behind a pointer is shown with Go's sign for its address.
            let sign = if kind.name.starts_with('*') { "&" } else { "" };
            format!("{sign}{{{}}}", fields.join(" "))
        }
        _ => bad(verb, value),
    }
}

fn pad(text: String, flags: &Flags) -> String {
    let missing = flags.width.saturating_sub(text.chars().count());
    if missing == 0 {
        text
    } else if flags.has('-') {
        text + &" ".repeat(missing)
    } else {
        " ".repeat(missing) + &text
    }
}

/// A number's digits behind its sign, with zeros between them where that is asked for.
fn pad_number(is_negative: bool, digits: &str, flags: &Flags, zeros: bool) -> String {
    let sign = match (is_negative, flags.has('+'), flags.has(' ')) {
        (true, ..) => "-",
        (_, true, _) => "+",
        (_, _, true) => " ",
        _ => "",
    };
    let missing = flags.width.saturating_sub(sign.len() + digits.chars().count());
    if zeros && flags.has('0') && !flags.has('-') {
        format!("{sign}{}{digits}", "0".repeat(missing))
    } else {
        pad(format!("{sign}{digits}"), flags)
    }
}

fn integer(verb: char, flags: &Flags, number: i64) -> Option<String> {
    let size = number.unsigned_abs();
    let character = || u32::try_from(number).ok().and_then(char::from_u32).unwrap_or('\u{fffd}');
    let sharp = |prefix: &str| if flags.has('#') { prefix.to_owned() } else { String::new() };
    let digits = match verb {
        'v' | 'd' => size.to_string(),
        'b' => sharp("0b") + &format!("{size:b}"),
        'o' => sharp("0") + &format!("{size:o}"),
        'O' => format!("0o{size:o}"),
        'x' => sharp("0x") + &format!("{size:x}"),
        'X' => sharp("0X") + &format!("{size:X}"),
        'c' => return Some(pad(character().to_string(), flags)),
        'q' => return Some(pad(format!("{:?}", character()), flags)),
        'U' => return Some(pad(format!("U+{size:04X}"), flags)),
        _ => return None,
    };
    let least = flags.precision.unwrap_or(0);
    let digits = "0".repeat(least.saturating_sub(digits.len())) + &digits;
    Some(pad_number(number < 0, &digits, flags, flags.precision.is_none()))
}

fn text_by(verb: char, flags: &Flags, text: &str) -> Option<String> {
    let cut = || match flags.precision {
        Some(most) => text.chars().take(most).collect::<String>(),
        None => text.to_owned(),
    };
    let hex = |upper: bool| {
        let bytes = text.bytes().take(flags.precision.unwrap_or(usize::MAX));
        bytes.map(|b| if upper { format!("{b:02X}") } else { format!("{b:02x}") }).collect::<String>()
    };
    Some(match verb {
        'v' if flags.has('#') => pad(crate::labels::quoted(text), flags),
        'v' | 's' => pad(cut(), flags),
        'q' => pad(crate::labels::quoted(&cut()), flags),
        'x' => pad(hex(false), flags),
        'X' => pad(hex(true), flags),
        _ => return None,
    })
}

fn float(verb: char, flags: &Flags, number: f64) -> Option<String> {
    if !matches!(verb, 'v' | 'e' | 'E' | 'f' | 'F' | 'g' | 'G') {
        return None;
    }
    if !number.is_finite() {
        let text = if number.is_nan() { "NaN" } else { "Inf" };
        let mut flags = flags.clone();
        // Go writes +Inf whether a sign was asked for or not.
        flags.signs.push_str(if number > 0.0 { "+" } else { "" });
        return Some(pad_number(number == f64::NEG_INFINITY, text, &flags, false));
    }
    let size = number.abs();
    let digits = match verb {
        'f' | 'F' => format!("{size:.*}", flags.precision.unwrap_or(6)),
        'e' | 'E' => exponent(&format!("{size:.*e}", flags.precision.unwrap_or(6))),
        _ => general(size, flags.precision),
    };
    let digits = if verb.is_ascii_uppercase() { digits.to_uppercase() } else { digits };
    Some(pad_number(number.is_sign_negative(), &digits, flags, true))
}

/// Rust's `1e5` as Go's `1e+05`.
fn exponent(text: &str) -> String {
    let (digits, power) = text.split_once('e').unwrap_or((text, "0"));
    let (sign, power) = power.strip_prefix('-').map_or(('+', power), |power| ('-', power));
    format!("{digits}e{sign}{power:0>2}")
}

/// `%g`: with an exponent where it is below -4, or not below the precision.
fn general(size: f64, precision: Option<usize>) -> String {
    let scientific = match precision {
        None => format!("{size:e}"),
        Some(digits) => {
            let text = format!("{size:.*e}", digits.max(1) - 1);
            let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
            let digits = if digits.contains('.') {
                digits.trim_end_matches('0').trim_end_matches('.')
            } else {
                digits
            };
            format!("{digits}e{power}")
        }
    };
    let (digits, power) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let power: i32 = power.parse().unwrap_or(0);
    let count = digits.chars().filter(char::is_ascii_digit).count() as i32;
    let least = match precision {
        // Where every digit counts, Go decides as if six were asked for.
        None => 6,
        Some(most) => {
            let most = most.max(1) as i32;
            if most > count && count > power { count } else { most }
        }
    };
    if size != 0.0 && (power < -4 || power >= least) {
        return exponent(&scientific);
    }
    format!("{size:.*}", (count - 1 - power).max(0) as usize)
}

/// `strconv.FormatFloat(v, 'g', 4)` and its like, for whoever makes numbers readable.
pub fn significant(number: f64, digits: usize) -> String {
    let flags = Flags { precision: Some(digits), ..Flags::default() };
    float('g', &flags, number).unwrap_or_default()
}

/// JSON as Go's encoder writes it, with `<`, `>` and `&` escaped.
pub fn json(value: &Value) -> String {
    let mut out = String::new();
    write_json(&mut out, value);
    out
}

fn write_json(out: &mut String, value: &Value) {
    match value {
        Value::Missing | Value::Nil => out.push_str("null"),
        Value::Bool(truth) => out.push_str(if *truth { "true" } else { "false" }),
        Value::Int(number) | Value::Duration(number) => out.push_str(&number.to_string()),
        Value::Float(number) if !number.is_finite() => out.push_str("null"),
        Value::Float(number) => {
            let size = number.abs();
            if size != 0.0 && !(1e-6..1e21).contains(&size) {
                let text = exponent(&format!("{number:e}"));
                // One digit where one is enough, as in ES6.
                out.push_str(&text.replace("e-0", "e-"));
            } else {
                out.push_str(&number.to_string());
            }
        }
        Value::Text(text) | Value::Safe(_, text) => json_text(out, text),
        Value::Time(at, _) => {
            let text = super::time::layout(at, "", "2006-01-02T15:04:05.999999999Z07:00");
            json_text(out, &text);
        }
        Value::List(_, items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { "," });
                write_json(out, item);
            }
            out.push(']');
        }
        Value::Map(_, entries) => {
            let pairs = entries.iter().map(|(name, value)| (name.to_string(), value));
            write_object(out, pairs);
        }
        Value::Struct(_, fields) => {
            let name = |name: &str| {
                let mut letters = name.chars();
                let first = letters.next().map(|c| c.to_ascii_lowercase());
                // As Alertmanager tags its fields: `startsAt`, `generatorURL`.
                first.into_iter().chain(letters).collect::<String>()
            };
            write_object(out, fields.iter().map(|(field, value)| (name(field), value)));
        }
    }
}

fn write_object<'v>(out: &mut String, pairs: impl Iterator<Item = (String, &'v Value)>) {
    out.push('{');
    for (at, (name, value)) in pairs.enumerate() {
        out.push_str(if at == 0 { "" } else { "," });
        json_text(out, &name);
        out.push(':');
        write_json(out, value);
    }
    out.push('}');
}

fn json_text(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
