//! Our own metrics as a page, in the format that the reader asks for.

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::registry::Registry;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The page as OpenMetrics.
pub(crate) fn encode(registry: &Registry) -> Result<String, String> {
    let mut page = String::new();
    prometheus_client::encoding::text::encode(&mut page, registry).map_err(|error| error.to_string())?;
    Ok(page)
}

/// OpenMetrics for those who name it, the older text format for everybody else, as Prometheus does.
pub(crate) fn respond(registry: &Registry, headers: &HeaderMap) -> Response {
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let wants_open = accept.into_iter().any(|value| value.contains("application/openmetrics-text"));
    match encode(registry) {
        Ok(page) if wants_open => ([(header::CONTENT_TYPE, OPEN_METRICS)], page).into_response(),
        Ok(page) => ([(header::CONTENT_TYPE, CLASSIC)], classic(&page)).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error).into_response(),
    }
}

/// An OpenMetrics page in the text format 0.0.4: there the name of a family is that of its samples.
fn classic(page: &str) -> String {
    let mut out = String::with_capacity(page.len());
    let mut help = None;
    for line in page.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            out.push_str(line);
            out.push('\n');
            continue;
        };
        let mut words = comment.splitn(3, ' ');
        match (words.next(), words.next(), words.next()) {
            (Some("HELP"), Some(_), Some(text)) => help = Some(text),
            (Some("TYPE"), Some(name), Some(kind)) => {
                let (ending, kind) = match kind {
                    "counter" => ("_total", kind),
                    "info" => ("_info", "gauge"),
                    "stateset" => ("", "gauge"),
                    "unknown" => ("", "untyped"),
                    _ => ("", kind),
                };
                if let Some(help) = help.take() {
                    out.push_str(&format!("# HELP {name}{ending} {help}\n"));
                }
                out.push_str(&format!("# TYPE {name}{ending} {kind}\n"));
            }
            // Units and the end have no words there.
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_get_the_names_of_their_samples() {
        let page = "# HELP a A # thing.\n# TYPE a counter\na_total{x=\"# TYPE\"} 1\n# TYPE b info\nb_info{} 1\n\
            # HELP c C.\n# TYPE c histogram\n# UNIT c seconds\nc_bucket{le=\"+Inf\"} 1\n# TYPE d unknown\nd 1\n# EOF\n";
        let want = "# HELP a_total A # thing.\n# TYPE a_total counter\na_total{x=\"# TYPE\"} 1\n\
            # TYPE b_info gauge\nb_info{} 1\n\
            # HELP c C.\n# TYPE c histogram\nc_bucket{le=\"+Inf\"} 1\n# TYPE d untyped\nd 1\n";
        assert_eq!(classic(page), want);
    }
}
