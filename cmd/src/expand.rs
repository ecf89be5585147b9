//! Variables of the environment in values of the configuration.

/// `text` with `$NAME` and `${NAME}` replaced by what `get` knows, as Prometheus does in external labels; `$$` stands for
/// `$`. What is not known is left out, and noted.
pub(crate) fn expand(text: &str, get: impl Fn(&str) -> Option<String>, missing: &mut Vec<String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('$') {
        out.push_str(before);
        let (name, after) = if let Some(after) = behind.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        } else if let Some((name, after)) = behind.strip_prefix('{').and_then(|braced| braced.split_once('}'))
        {
            (name, after)
        } else {
            let is_inside = |c: char| c == '_' || c.is_ascii_alphanumeric();
            behind.split_at(behind.find(|c| !is_inside(c)).unwrap_or(behind.len()))
        };
        if name.is_empty() {
            out.push('$');
        } else if let Some(value) = get(name) {
            out.push_str(&value);
        } else {
            missing.push(name.to_owned());
        }
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced_and_dollars_stay() {
        let get = |name: &str| (name == "POD").then(|| "a-0".to_owned());
        let check = |text: &str, want: &str, gone: &[&str]| {
            let mut missing = Vec::new();
            assert_eq!(expand(text, get, &mut missing), want, "{text}");
            assert_eq!(missing, gone, "{text}");
        };
        check("plain", "plain", &[]);
        check("${POD}-$POD.x", "a-0-a-0.x", &[]);
        check("$$POD $ 5$", "$POD $ 5$", &[]);
        check("x${NODE}y$NO", "xy", &["NODE", "NO"]);
        check("${POD", "${POD", &[]);
    }
}
