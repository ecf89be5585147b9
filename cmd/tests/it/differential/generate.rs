//! Expressions of our own making, over all functions and operators of Prometheus.

/// SplitMix64: the same numbers from the same seed.
pub(crate) struct Random {
    state: u64,
    /// About when questions are asked, in Unix seconds.
    at: i64,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed, at: 0 }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len() as u64) as usize]
    }
}

const METRICS: [&str; 4] = ["made_requests_total", "made_temperature", "made_errors_total", "made_load"];
const MATCHERS: [&str; 8] = [
    "",
    r#"{job="api"}"#,
    r#"{job=~"api|web"}"#,
    r#"{job!="web"}"#,
    r#"{zone=~"zone-.*"}"#,
    r#"{code!~"5..|x"}"#,
    r#"{absent_label=""}"#,
    r#"{job="api",code="200"}"#,
];
const LABELS: [&str; 4] = ["job", "zone", "code", "instance"];
const RANGES: [&str; 5] = ["1m", "90s", "5m", "10m", "25m"];
const OF_RANGES: [&str; 28] = [
    "rate",
    "increase",
    "delta",
    "irate",
    "idelta",
    "deriv",
    "changes",
    "resets",
    "avg_over_time",
    "min_over_time",
    "max_over_time",
    "sum_over_time",
    "count_over_time",
    "stddev_over_time",
    "stdvar_over_time",
    "last_over_time",
    "present_over_time",
    "absent_over_time",
    "mad_over_time",
    "first_over_time",
    "ts_of_min_over_time",
    "ts_of_max_over_time",
    "ts_of_last_over_time",
    "ts_of_first_over_time",
    "sum_over_time",
    "rate",
    "increase",
    "avg_over_time",
];
const OF_VECTORS: [&str; 35] = [
    "abs",
    "absent",
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atanh",
    "ceil",
    "cos",
    "cosh",
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "days_in_month",
    "deg",
    "exp",
    "floor",
    "hour",
    "ln",
    "log10",
    "log2",
    "minute",
    "month",
    "rad",
    "round",
    "sgn",
    "sin",
    "sinh",
    "sqrt",
    "tan",
    "tanh",
    "timestamp",
    "year",
    "sort",
];
const AGGREGATIONS: [&str; 9] = ["sum", "avg", "min", "max", "count", "group", "stddev", "stdvar", "sum"];
const ARITHMETIC: [&str; 7] = ["+", "-", "*", "/", "%", "^", "atan2"];
/// Of large numbers these are so large that their last bit is more than whatever is made of them.
const GROWING: [&str; 3] = ["cosh", "exp", "sinh"];
const COMPARISONS: [&str; 6] = ["==", "!=", ">", "<", ">=", "<="];

/// Native histograms, of which the data is made apart.
pub(super) const NATIVE: &str = "made_native";

/// So many expressions, to be asked at about `at`; the first ones name every metric with every label, so that data is
/// made for them.
pub(super) fn expressions(seed: u64, count: usize, at: i64) -> Vec<String> {
    let mut random = Random::new(seed);
    random.at = at;
    let mut found: Vec<String> = Vec::with_capacity(count);
    for metric in METRICS {
        for job in ["api", "web", "db"] {
            for code in ["200", "404", "500"] {
                found.push(format!(r#"sum by (zone, instance) ({metric}{{job="{job}",code="{code}"}})"#));
            }
        }
    }
    found.push(r"sum by (le, zone, instance, job) (made_latency_bucket)".to_owned());
    for job in ["api", "web", "db"] {
        found.push(format!(r#"target_info{{job="{job}", version=~".+"}}"#));
    }
    while found.len() < count {
        let depth = 1 + random.below(3);
        found.push(vector(&mut random, depth));
    }
    found
}

fn number(random: &mut Random) -> String {
    random.pick(&["0", "1", "2", "0.5", "-3", "10", "1e3", "NaN", "Inf", "0.99", "7"]).to_owned()
}

fn selector(random: &mut Random) -> String {
    format!("{}{}", random.pick(&METRICS), random.pick(&MATCHERS))
}

fn moved(random: &mut Random) -> String {
    let place = match random.below(14) {
        0 => " offset 3m",
        1 => " offset -1m",
        2 => " @ start()",
        3 => " @ end()",
        4 => " @ end() offset 4m",
        5 => return format!(" @ {}", random.at - 60 * random.below(20) as i64),
        6 => return format!(" @ {}.5 offset 47s", random.at - 60 * random.below(9) as i64),
        _ => "",
    };
    place.to_owned()
}

fn range(random: &mut Random, depth: u64) -> String {
    if depth > 0 && random.below(4) == 0 {
        let inner = vector(random, depth - 1);
        let step = random.pick(&["", "30s", "1m", "47s"]);
        return format!("({inner})[{}:{step}]{}", random.pick(&["3m", "10m"]), moved(random));
    }
    format!("{}[{}]{}", selector(random), random.pick(&RANGES), moved(random))
}

fn names(random: &mut Random) -> String {
    let count = random.below(3);
    let start = random.below(LABELS.len() as u64) as usize;
    let picked: Vec<&str> = (0..count as usize).map(|at| LABELS[(start + at) % LABELS.len()]).collect();
    picked.join(", ")
}

fn scalar(random: &mut Random, depth: u64) -> String {
    match random.below(6) {
        0 if depth > 0 => format!("scalar({})", vector(random, depth - 1)),
        1 => "time()".to_owned(),
        2 => "pi()".to_owned(),
        3 => format!("({} {} {})", number(random), random.pick(&ARITHMETIC[..5]), number(random)),
        _ => number(random),
    }
}

fn vector(random: &mut Random, depth: u64) -> String {
    if depth == 0 {
        return format!("{}{}", selector(random), moved(random));
    }
    match random.below(18) {
        16 => of_native(random),
        17 => ordered(random, depth - 1),
        0..=3 => format!("{}({})", random.pick(&OF_RANGES), range(random, depth - 1)),
        4 => {
            let range = range(random, depth - 1);
            let number = random.pick(&["0", "0.3", "0.5", "0.99", "1", "1.5", "-1", "NaN"]);
            match random.below(3) {
                0 => format!("quantile_over_time({number}, {range})"),
                1 => format!("predict_linear({range}, 600)"),
                _ => format!("double_exponential_smoothing({range}, 0.3, 0.6)"),
            }
        }
        5 | 6 => {
            let (name, inner) = (random.pick(&OF_VECTORS), vector(random, depth - 1));
            if GROWING.contains(&name) {
                format!("{name}({})", small(&inner))
            } else {
                format!("{name}({inner})")
            }
        }
        7 => call(random, depth - 1),
        8..=10 => aggregation(random, depth - 1),
        11 => format!("-({})", vector(random, depth - 1)),
        12 => format!("vector({})", scalar(random, depth - 1)),
        _ => binary(random, depth - 1),
    }
}

/// A vector of native histograms.
fn native(random: &mut Random) -> String {
    let matcher = random.pick(&["", r#"{job="api"}"#, r#"{zone!="zone-0"}"#]);
    let selector = format!("{NATIVE}{matcher}");
    let over = ["rate", "increase", "delta", "irate", "sum_over_time", "avg_over_time", "last_over_time"];
    let base = match random.below(3) {
        0 => format!("{selector}{}", moved(random)),
        _ => format!("{}({selector}[{}]{})", random.pick(&over), random.pick(&RANGES), moved(random)),
    };
    match random.below(6) {
        0 => format!("sum by (job) ({base})"),
        1 => format!("avg without (instance) ({base})"),
        2 => format!("({base}) {} {}", random.pick(&["*", "/"]), random.pick(&["2", "0.5", "-3"])),
        3 => {
            // What an average leaves of equal counts is nothing, or the last bit of something.
            let op = if base.contains("avg") { "+" } else { random.pick(&["+", "-"]) };
            format!("({base}) {op} on (instance, job, zone) {selector}")
        }
        _ => base,
    }
}

/// A number of each native histogram, or what else is made of them.
fn of_native(random: &mut Random) -> String {
    let of = ["histogram_count", "histogram_sum", "histogram_avg", "histogram_stddev", "histogram_stdvar"];
    let windows = ["changes", "resets", "count_over_time", "present_over_time", "absent_over_time"];
    match random.below(8) {
        0 => native(random),
        1 => {
            let q = random.pick(&["0.5", "0.99", "0", "1", "0.01", "-1", "NaN"]);
            format!("histogram_quantile({q}, {})", native(random))
        }
        2 | 3 => {
            let (lower, upper) =
                (random.pick(&["0", "0.2", "-Inf", "-1", "3"]), random.pick(&["1", "7", "Inf", "0.2"]));
            format!("histogram_fraction({lower}, {upper}, {})", native(random))
        }
        4 => format!("{}({NATIVE}[{}])", random.pick(&windows), random.pick(&RANGES)),
        _ => format!("{}({})", random.pick(&of), native(random)),
    }
}

/// What chooses or orders by labels, or adds some.
fn ordered(random: &mut Random, depth: u64) -> String {
    match random.below(7) {
        // Prometheus puts series without the label anywhere.
        0 => format!(
            r#"sort_by_label({}{{job!="",zone!=""}}, "job", "instance", "zone")"#,
            random.pick(&METRICS)
        ),
        1 => format!(r#"sort_by_label_desc({}{{job!="",zone!=""}}, "zone", "job")"#, random.pick(&METRICS)),
        2 => format!("limitk({}, {})", random.pick(&["0", "1", "3", "100"]), selector(random)),
        3 => {
            let ratio = random.pick(&["0", "0.3", "0.7", "1", "-0.3", "-0.7"]);
            // Of what is stored: names that are to go count in the hash of labels, or not.
            format!("limit_ratio({ratio}, {})", selector(random))
        }
        4 => format!("info({})", selector(random)),
        5 => format!(r#"info({}, {{version=~".+"}})"#, selector(random)),
        _ => {
            let side = random.pick(&["group_left (zone)", "group_left (code, zone)", "group_left ()"]);
            // The same at all steps: 3.5 takes those that came at others for partners, too.
            let one = format!("max by (job, zone) ({} @ end())", selector(random));
            format!("({}) * on (job) {side} topk by (job) (1, {one})", vector(random, depth))
        }
    }
}

fn small(inner: &str) -> String {
    format!("clamp({inner}, -9, 9)")
}

/// A vector and a number; of powers only small ones.
fn powered(vector: &str, op: &str, number: &str, is_swapped: bool) -> String {
    match (op, is_swapped) {
        ("^", false) => format!("{} ^ 2", small(vector)),
        ("^", true) => format!("2 ^ {}", small(vector)),
        (_, false) => format!("({vector}) {op} {number}"),
        (_, true) => format!("{number} {op} ({vector})"),
    }
}

fn call(random: &mut Random, depth: u64) -> String {
    let inner = vector(random, depth);
    match random.below(8) {
        0 => format!("clamp({inner}, {}, {})", number(random), number(random)),
        1 => format!("clamp_min({inner}, {})", scalar(random, depth)),
        2 => format!("clamp_max({inner}, {})", scalar(random, depth)),
        3 => format!("round({inner}, {})", random.pick(&["0.1", "5", "0.03", "100"])),
        4 => format!(r#"label_replace({inner}, "made", "$1-x", "job", "(.).*")"#),
        5 => format!(r#"label_join({inner}, "made", "/", "job", "code", "nowhere")"#),
        6 => format!("sort_desc({inner})"),
        _ => {
            let q = random.pick(&["0.5", "0.99", "0", "1", "-1", "2", "NaN"]);
            let by = random.pick(&["le", "le, zone", "le, instance, job"]);
            let window = random.pick(&RANGES);
            format!("histogram_quantile({q}, sum by ({by}) (rate(made_latency_bucket[{window}])))")
        }
    }
}

fn aggregation(random: &mut Random, depth: u64) -> String {
    let grouping = match random.below(4) {
        0 => String::new(),
        1 => format!(" without ({})", names(random)),
        _ => format!(" by ({})", names(random)),
    };
    let inner = vector(random, depth);
    match random.below(8) {
        0 => format!("quantile{grouping} ({}, {inner})", random.pick(&["0.5", "0.9", "0", "1", "2"])),
        // The number makes values differ: which of several equal ones is taken depends on their order.
        1 => {
            let k = random.pick(&["1", "2", "3", "100"]);
            format!("{}{grouping} ({k}, {inner})", random.pick(&["topk", "bottomk"]))
        }
        // Of what is stored: the last digit of a calculation would be a label.
        2 => format!(r#"count_values{grouping} ("value", round({}, 0.5))"#, selector(random)),
        _ => format!("{}{grouping} ({inner})", random.pick(&AGGREGATIONS)),
    }
}

fn binary(random: &mut Random, depth: u64) -> String {
    let left = vector(random, depth);
    if random.below(3) == 0 {
        let number = scalar(random, depth);
        let bool = if random.below(2) == 0 { " bool" } else { "" };
        return match random.below(3) {
            0 => powered(&left, random.pick(&ARITHMETIC), &number, false),
            1 => powered(&left, random.pick(&ARITHMETIC), &number, true),
            _ => format!("({left}) {}{bool} {number}", random.pick(&COMPARISONS)),
        };
    }
    let right = vector(random, depth);
    let matching = match random.below(4) {
        0 => format!(" on ({})", names(random)),
        1 => format!(" ignoring ({})", names(random)),
        _ => String::new(),
    };
    let side = if matching.is_empty() { "" } else { random.pick(&["", " group_left", " group_right ()"]) };
    match random.below(4) {
        0 => format!("({left}) {}{matching} ({right})", random.pick(&["and", "or", "unless"])),
        1 => {
            let bool = if random.below(2) == 0 { " bool" } else { "" };
            format!("({left}) {}{bool}{matching}{side} ({right})", random.pick(&COMPARISONS))
        }
        _ => {
            let op = random.pick(&ARITHMETIC);
            let is_power = op == "^";
            let (left, right) = if is_power { (small(&left), small(&right)) } else { (left, right) };
            format!("({left}) {op}{matching}{side} ({right})")
        }
    }
}
