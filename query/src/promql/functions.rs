//! The table of functions: what each takes and gives.

use super::ast::ValueType::{self, Matrix, Scalar, String as Text, Vector};

/// What a function takes and gives.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signature {
    pub(super) name: &'static str,
    pub(super) args: &'static [ValueType],
    /// How many of `args` must be there.
    pub(super) required: usize,
    /// How many arguments it takes at most; the last kind is repeated.
    pub(super) most: usize,
    pub(super) returns: ValueType,
    pub(super) experimental: bool,
}

const fn takes(name: &'static str, args: &'static [ValueType]) -> Signature {
    let count = args.len();
    Signature { name, args, required: count, most: count, returns: Vector, experimental: false }
}

/// The last argument may be left out.
const fn maybe(name: &'static str, args: &'static [ValueType]) -> Signature {
    Signature { required: args.len() - 1, ..takes(name, args) }
}

const fn scalar(name: &'static str, args: &'static [ValueType]) -> Signature {
    Signature { returns: Scalar, ..takes(name, args) }
}

/// The last argument may be left out or repeated.
const fn many(name: &'static str, args: &'static [ValueType], most: usize) -> Signature {
    Signature { most, ..maybe(name, args) }
}

const fn experimental(signature: Signature) -> Signature {
    Signature { experimental: true, ..signature }
}

const V: &[ValueType] = &[Vector];
const M: &[ValueType] = &[Matrix];

/// Ascending by name.
static SIGNATURES: &[Signature] = &[
    takes("abs", V),
    takes("absent", V),
    takes("absent_over_time", M),
    takes("acos", V),
    takes("acosh", V),
    takes("asin", V),
    takes("asinh", V),
    takes("atan", V),
    takes("atanh", V),
    takes("avg_over_time", M),
    takes("ceil", V),
    takes("changes", M),
    takes("clamp", &[Vector, Scalar, Scalar]),
    takes("clamp_max", &[Vector, Scalar]),
    takes("clamp_min", &[Vector, Scalar]),
    takes("cos", V),
    takes("cosh", V),
    takes("count_over_time", M),
    maybe("day_of_month", V),
    maybe("day_of_week", V),
    maybe("day_of_year", V),
    maybe("days_in_month", V),
    takes("deg", V),
    takes("delta", M),
    takes("deriv", M),
    experimental(takes("double_exponential_smoothing", &[Matrix, Scalar, Scalar])),
    experimental(scalar("end", &[])),
    takes("exp", V),
    experimental(takes("first_over_time", M)),
    takes("floor", V),
    takes("histogram_avg", V),
    takes("histogram_count", V),
    takes("histogram_fraction", &[Scalar, Scalar, Vector]),
    takes("histogram_quantile", &[Scalar, Vector]),
    experimental(Signature {
        required: 3,
        most: 12,
        ..takes("histogram_quantiles", &[Vector, Text, Scalar, Scalar])
    }),
    takes("histogram_stddev", V),
    takes("histogram_stdvar", V),
    takes("histogram_sum", V),
    maybe("hour", V),
    takes("idelta", M),
    takes("increase", M),
    experimental(maybe("info", &[Vector, Vector])),
    takes("irate", M),
    many("label_join", &[Vector, Text, Text, Text], usize::MAX),
    takes("label_replace", &[Vector, Text, Text, Text, Text]),
    takes("last_over_time", M),
    takes("ln", V),
    takes("log10", V),
    takes("log2", V),
    experimental(takes("mad_over_time", M)),
    experimental(scalar("max_of", &[Scalar, Scalar])),
    takes("max_over_time", M),
    experimental(scalar("min_of", &[Scalar, Scalar])),
    takes("min_over_time", M),
    maybe("minute", V),
    maybe("month", V),
    scalar("pi", &[]),
    takes("predict_linear", &[Matrix, Scalar]),
    takes("present_over_time", M),
    takes("quantile_over_time", &[Scalar, Matrix]),
    takes("rad", V),
    experimental(scalar("range", &[])),
    takes("rate", M),
    takes("resets", M),
    maybe("round", &[Vector, Scalar]),
    scalar("scalar", V),
    takes("sgn", V),
    takes("sin", V),
    takes("sinh", V),
    takes("sort", V),
    experimental(many("sort_by_label", &[Vector, Text], usize::MAX)),
    experimental(many("sort_by_label_desc", &[Vector, Text], usize::MAX)),
    takes("sort_desc", V),
    takes("sqrt", V),
    experimental(scalar("start", &[])),
    takes("stddev_over_time", M),
    takes("stdvar_over_time", M),
    experimental(scalar("step", &[])),
    takes("sum_over_time", M),
    takes("tan", V),
    takes("tanh", V),
    scalar("time", &[]),
    takes("timestamp", V),
    experimental(takes("ts_of_first_over_time", M)),
    experimental(takes("ts_of_last_over_time", M)),
    experimental(takes("ts_of_max_over_time", M)),
    experimental(takes("ts_of_min_over_time", M)),
    takes("vector", &[Scalar]),
    maybe("year", V),
];

/// Names of all functions, and whether they are experimental.
pub fn names() -> impl Iterator<Item = (&'static str, bool)> {
    SIGNATURES.iter().map(|signature| (signature.name, signature.experimental))
}

/// The signature of a function.
pub(super) fn signature(name: &str) -> Option<&'static Signature> {
    let at = SIGNATURES.binary_search_by(|signature| signature.name.cmp(name)).ok()?;
    Some(&SIGNATURES[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted() {
        assert!(SIGNATURES.is_sorted_by(|a, b| a.name < b.name));
        assert!(signature("rate").is_some() && signature("rat").is_none());
    }
}
