//! Queries as JSON, as Prometheus's `/api/v1/parse_query` answers them to editors.

use binnacle_model::Matcher;
use binnacle_model::labels::METRIC_NAME;
use serde_json::{Value, json};

use super::ast::{
    AggregateOp, At, Binary, Borders, Call, Card, DurationExpr, Expr, Grouping, Kind, Notation, Reach,
    Selector, ValueType,
};
use super::functions;
use crate::http::format_value;

/// The query's tree.
pub fn tree(expr: &Expr) -> Value {
    match &expr.kind {
        Kind::Number(value, _) => json!({ "type": "numberLiteral", "val": format_value(*value) }),
        Kind::Text(text) => json!({ "type": "stringLiteral", "val": text }),
        Kind::Vector(selector) => selected("vectorSelector", selector),
        Kind::Matrix(selector, range) => {
            let mut node = selected("matrixSelector", selector);
            node["range"] = fixed(range);
            node["rangeExpr"] = calculated(range);
            node
        }
        Kind::Subquery(subquery) => {
            let (timestamp, start_or_end) = moment(subquery.at);
            let step = subquery.step.clone().unwrap_or_default();
            json!({
                "type": "subquery",
                "expr": tree(&subquery.expr),
                "range": fixed(&subquery.range), "rangeExpr": calculated(&subquery.range),
                "offset": fixed(&subquery.offset), "offsetExpr": calculated(&subquery.offset),
                "step": fixed(&step), "stepExpr": calculated(&step),
                "timestamp": timestamp,
                "startOrEnd": start_or_end,
            })
        }
        Kind::Unary { minus, expr } => {
            json!({ "type": "unaryExpr", "op": if *minus { "-" } else { "+" }, "expr": tree(expr) })
        }
        Kind::Paren(inner) => json!({ "type": "parenExpr", "expr": tree(inner) }),
        Kind::Binary(binary) => of_binary(binary),
        Kind::Aggregate(aggregation) => {
            let (without, grouping) = match &aggregation.grouping {
                Grouping::By(labels) => (false, labels),
                Grouping::Without(labels) => (true, labels),
            };
            json!({
                "type": "aggregation",
                "op": AggregateOp::as_str(aggregation.op),
                "expr": tree(&aggregation.expr),
                "param": aggregation.param.as_ref().map(tree),
                "grouping": grouping,
                "without": without,
            })
        }
        Kind::Call(call) => of_call(call),
    }
}

fn of_binary(binary: &Binary) -> Value {
    let has_series = |side: &Expr| side.value_type() == ValueType::Vector;
    let matching = &binary.matching;
    let pairs = (has_series(&binary.left) && has_series(&binary.right)).then(|| {
        json!({
            "card": match matching.card {
                Card::OneToOne => "one-to-one",
                Card::ManyToOne => "many-to-one",
                Card::OneToMany => "one-to-many",
                Card::ManyToMany => "many-to-many",
            },
            "labels": matching.labels,
            "on": matching.on,
            "include": matching.include,
            // JSON has no NaN: `fill(NaN)` is shown as null.
            "fillValues": { "lhs": matching.fill_left, "rhs": matching.fill_right },
        })
    });
    json!({
        "type": "binaryExpr",
        "op": binary.op.as_str(),
        "lhs": tree(&binary.left),
        "rhs": tree(&binary.right),
        "matching": pairs,
        "bool": binary.returns_bool,
    })
}

fn of_call(call: &Call) -> Value {
    let signature = functions::signature(call.name).expect("the parser knows the function");
    let kinds: Vec<&str> = signature.args.iter().copied().map(kind).collect();
    // As Prometheus counts: how many may follow the first ones, -1 for any number.
    let variadic = match (signature.required, signature.most) {
        (required, most) if required == most => 0,
        (_, usize::MAX) => -1,
        (_, most) => (most + 1 - signature.args.len()) as i64,
    };
    json!({
        "type": "call",
        "func": {
            "name": call.name,
            "argTypes": kinds,
            "variadic": variadic,
            "returnType": kind(signature.returns),
        },
        "args": call.args.iter().map(tree).collect::<Vec<_>>(),
    })
}

fn kind(kind: ValueType) -> &'static str {
    match kind {
        ValueType::Scalar => "scalar",
        ValueType::Vector => "vector",
        ValueType::Matrix => "matrix",
        ValueType::String => "string",
    }
}

fn selected(kind: &str, selector: &Selector) -> Value {
    let (timestamp, start_or_end) = moment(selector.at);
    // The name before the braces comes last.
    let is_name = |matcher: &&Matcher| selector.name.is_some() && matcher.name == METRIC_NAME;
    let others = selector.matchers.iter().filter(|matcher| !is_name(matcher));
    let matchers = others.chain(selector.matchers.iter().filter(is_name));
    json!({
        "type": kind,
        "name": selector.name.as_deref().unwrap_or_default(),
        "offset": fixed(&selector.offset), "offsetExpr": calculated(&selector.offset),
        "matchers": matchers.map(of_matcher).collect::<Vec<_>>(),
        "timestamp": timestamp,
        "startOrEnd": start_or_end,
        "anchored": selector.borders == Borders::Anchored,
        "smoothed": selector.borders == Borders::Smoothed,
    })
}

fn of_matcher(matcher: &Matcher) -> Value {
    json!({ "name": matcher.name, "value": matcher.value, "type": matcher.op.as_str() })
}

/// Milliseconds, and a word for the ends of the query.
fn moment(at: Option<At>) -> (Option<i64>, Option<&'static str>) {
    match at {
        None => (None, None),
        Some(At::Time(time)) => (Some(time.0), None),
        Some(At::Start) => (None, Some("start")),
        Some(At::End) => (None, Some("end")),
    }
}

/// Milliseconds; zero for what the query's steps decide.
fn fixed(reach: &Reach) -> Value {
    match reach {
        Reach::Fixed(ms) => json!(ms),
        Reach::Calculated(_) => json!(0),
    }
}

fn calculated(reach: &Reach) -> Value {
    match reach {
        Reach::Fixed(_) => Value::Null,
        Reach::Calculated(expr) => of_duration(expr, false),
    }
}

fn of_duration(expr: &DurationExpr, wrapped: bool) -> Value {
    let node = |op: &str, left: Option<&DurationExpr>, right: Option<&DurationExpr>| {
        let side = |side: Option<&DurationExpr>| side.map(|side| of_duration(side, false));
        json!({ "type": "durationExpr", "op": op, "lhs": side(left), "rhs": side(right), "wrapped": wrapped })
    };
    match expr {
        DurationExpr::Seconds(value, notation) => json!({
            "type": "numberLiteral",
            "val": format_value(*value),
            "duration": *notation == Notation::Duration,
        }),
        DurationExpr::Step => node("step", None, None),
        DurationExpr::Range => node("range", None, None),
        DurationExpr::Negate(inner) => node("-", None, Some(inner)),
        DurationExpr::Paren(inner) => of_duration(inner, true),
        DurationExpr::Binary(op, left, right) => node(op.as_str(), Some(left), Some(right)),
        DurationExpr::MinOf(left, right) => node("min_of", Some(left), Some(right)),
        DurationExpr::MaxOf(left, right) => node("max_of", Some(left), Some(right)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promql::parse;

    fn of(text: &str) -> Value {
        tree(&parse(text).unwrap())
    }

    #[test]
    fn selectors_are_as_prometheus_shows_them() {
        assert_eq!(
            of("x{a=\"1\",b!~\"2\"}[5m] offset 1m @ 3"),
            json!({
                "type": "matrixSelector", "name": "x", "range": 300_000, "rangeExpr": null,
                "offset": 60_000, "offsetExpr": null, "timestamp": 3000, "startOrEnd": null,
                "anchored": false, "smoothed": false,
                "matchers": [
                    { "name": "a", "type": "=", "value": "1" },
                    { "name": "b", "type": "!~", "value": "2" },
                    { "name": "__name__", "type": "=", "value": "x" },
                ],
            })
        );
        let subquery = of("x[1h:] @ end()");
        assert_eq!((&subquery["step"], &subquery["startOrEnd"]), (&json!(0), &json!("end")));
    }

    #[test]
    fn operators_say_how_they_match() {
        let found = of("a * on(b) group_left(c) d");
        let none = json!({ "lhs": null, "rhs": null });
        let want = json!({
            "card": "many-to-one", "labels": ["b"], "on": true, "include": ["c"], "fillValues": none,
        });
        assert_eq!((&found["op"], &found["matching"]), (&json!("*"), &want));
        assert_eq!(of("a + 1")["matching"], Value::Null);
        assert_eq!(of("a or b")["matching"]["card"], "many-to-many");
        assert_eq!(of("-1 + NaN")["rhs"], json!({ "type": "numberLiteral", "val": "NaN" }));
    }

    #[test]
    fn functions_and_aggregations_say_what_they_take() {
        let shape = |text: &str| of(text)["func"].take();
        let want = json!({ "name": "round", "argTypes": ["vector", "scalar"], "variadic": 1, "returnType": "vector" });
        assert_eq!(shape("round(x)"), want);
        assert_eq!(shape("label_join(x, \"a\", \"b\")")["variadic"], -1);
        assert_eq!(shape("rate(x[1m])")["variadic"], 0);
        let found = of("topk without (a) (3, x)");
        assert_eq!((&found["without"], &found["grouping"]), (&json!(true), &json!(["a"])));
        assert_eq!(found["param"]["val"], "3");
    }
}
