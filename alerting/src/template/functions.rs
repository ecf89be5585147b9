//! The functions of templates, as Prometheus's `template/template.go` defines them.

use binnacle_model::Timestamp;

use super::Value;

/// Calls a function; the piped value is the last of `args`.
pub(super) fn call(name: &str, args: &[Value]) -> Result<Value, String> {
    let one = || match args {
        [arg] => Ok(arg),
        _ => Err(format!("{name} takes one argument, got {}", args.len())),
    };
    let number = || one()?.to_number();
    let text = |text: String| Ok(Value::Text(text));
    match name {
        "humanize" => text(humanize(number()?)),
        "humanize1024" => text(humanize1024(number()?)),
        "humanizeDuration" => text(humanize_duration(number()?)),
        "humanizePercentage" => text(format!("{}%", significant(number()? * 100.0))),
        "humanizeTimestamp" => {
            let time = Timestamp::from_secs_f64(number()?);
            let time = time.ok_or_else(|| "timestamp out of bounds".to_owned())?;
            text(time.to_rfc3339().replace('T', " ").replace('Z', " +0000 UTC"))
        }
        "toUpper" => text(one()?.to_text().to_uppercase()),
        "toLower" => text(one()?.to_text().to_lowercase()),
        "title" => text(title(&one()?.to_text())),
        "stripPort" => {
            let host = one()?.to_text();
            let cut = host.rsplit_once(':').filter(|(name, _)| !name.contains(':') || name.ends_with(']'));
            text(cut.map_or(host.clone(), |(name, _)| name.trim_matches(['[', ']']).to_owned()))
        }
        "printf" => match args.split_first() {
            Some((format, rest)) => text(printf(&format.to_text(), rest)?),
            None => Err("printf takes a format".to_owned()),
        },
        "print" => text(args.iter().map(Value::to_text).collect()),
        _ => Err(format!("function {name:?} not defined")),
    }
}

/// A number as Go's `%v` prints it: shortest, with an exponent when it is large or small.
pub(super) fn shortest(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..21).contains(&exponent) || value == 0.0 {
        return value.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

/// Go's `%.4g`.
fn significant(value: f64) -> String {
    if !value.is_finite() || value == 0.0 {
        return shortest(value);
    }
    let text = format!("{value:.3e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trimmed = |text: &str| {
        if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            text.to_owned()
        }
    };
    if !(-4..4).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", trimmed(mantissa), exponent.abs());
    }
    trimmed(&format!("{value:.*}", (3 - exponent).max(0) as usize))
}

fn humanize(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return significant(value);
    }
    let (units, up): (&[&str], bool) = if value.abs() >= 1.0 {
        (&["", "k", "M", "G", "T", "P", "E", "Z", "Y"], true)
    } else {
        (&["", "m", "u", "n", "p", "f", "a", "z", "y"], false)
    };
    let mut scaled = value;
    let mut unit = 0;
    while unit + 1 < units.len() && (if up { scaled.abs() >= 1000.0 } else { scaled.abs() < 1.0 }) {
        scaled = if up { scaled / 1000.0 } else { scaled * 1000.0 };
        unit += 1;
    }
    format!("{}{}", significant(scaled), units[unit])
}

fn humanize1024(value: f64) -> String {
    if value.abs() <= 1.0 || !value.is_finite() {
        return significant(value);
    }
    let units = ["", "ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"];
    let mut scaled = value;
    let mut unit = 0;
    while unit + 1 < units.len() && scaled.abs() >= 1024.0 {
        scaled /= 1024.0;
        unit += 1;
    }
    format!("{}{}", significant(scaled), units[unit])
}

fn humanize_duration(value: f64) -> String {
    if !value.is_finite() {
        return significant(value);
    }
    if value == 0.0 {
        return "0s".to_owned();
    }
    if value.abs() >= 1.0 {
        let sign = if value < 0.0 { "-" } else { "" };
        let whole = value.abs() as i64;
        let (days, hours, minutes, seconds) =
            (whole / 86_400, whole / 3600 % 24, whole / 60 % 60, whole % 60);
        return if days != 0 {
            format!("{sign}{days}d {hours}h {minutes}m {seconds}s")
        } else if hours != 0 {
            format!("{sign}{hours}h {minutes}m {seconds}s")
        } else if minutes != 0 {
            format!("{sign}{minutes}m {seconds}s")
        } else {
            format!("{sign}{}s", significant(value.abs()))
        };
    }
    let mut scaled = value;
    let mut unit = "";
    for smaller in ["m", "u", "n", "p", "f", "a", "z", "y"] {
        if scaled.abs() >= 1.0 {
            break;
        }
        scaled *= 1000.0;
        unit = smaller;
    }
    format!("{}{unit}s", significant(scaled))
}

fn title(text: &str) -> String {
    let mut out = String::new();
    let mut starts = true;
    for c in text.chars() {
        if starts {
            out.extend(c.to_uppercase());
        } else {
            out.push(c);
        }
        starts = !(c.is_alphanumeric() || c == '_' || c == '\'');
    }
    out
}

/// The verbs of rule files: `%s %v %d %q %f %.2f %g %%`.
fn printf(format: &str, args: &[Value]) -> Result<String, String> {
    let mut out = String::new();
    let mut args = args.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut precision = None;
        while let Some(c) = chars.next_if(|c| c.is_ascii_digit() || matches!(c, '.' | '-' | '+')) {
            match c {
                '.' => precision = Some(0),
                digit => {
                    if let (Some(precision), Some(digit)) = (&mut precision, digit.to_digit(10)) {
                        *precision = (*precision * 10 + digit as usize).min(64);
                    }
                }
            }
        }
        let verb = chars.next().ok_or("printf: a verb is missing")?;
        if verb == '%' {
            out.push('%');
            continue;
        }
        let arg = args.next().ok_or("printf: an argument is missing")?;
        match verb {
            's' | 'v' => out.push_str(&arg.to_text()),
            'q' => out.push_str(&binnacle_model::labels::quoted(&arg.to_text())),
            'd' => out.push_str(&format!("{:.0}", arg.to_number()?)),
            'f' => out.push_str(&format!("{:.*}", precision.unwrap_or(6), arg.to_number()?)),
            'g' => match precision {
                Some(4) => out.push_str(&significant(arg.to_number()?)),
                _ => out.push_str(&shortest(arg.to_number()?)),
            },
            other => return Err(format!("printf: verb %{other} is not supported")),
        }
    }
    Ok(out)
}
