//! Counts what a body would become, before anything is made: an empty message is two bytes on the wire and a hundred
//! in memory.

use super::super::wire::Fields;

/// Messages of one request.
const MAX_MESSAGES: usize = 1_000_000;

/// Parts of lists and objects of one request in JSON, and counts of buckets in protobuf: a byte there, eight in memory.
const MAX_NUMBERS: usize = 8_000_000;

const TOO_MANY: &str = "body has more than a million messages; send smaller batches";

/// How deep values of attributes may lie in one another.
const MAX_DEPTH: usize = 64;

/// Which fields of a message are messages, and what they look like.
struct Shape(&'static [(u64, &'static Shape)]);

static LEAF: Shape = Shape(&[]);
static BUCKETS: Shape = Shape(&[]);
static VALUE: Shape = Shape(&[(5, &VALUES), (6, &PAIRS)]);
static VALUES: Shape = Shape(&[(1, &VALUE)]);
static PAIRS: Shape = Shape(&[(1, &PAIR)]);
static PAIR: Shape = Shape(&[(2, &VALUE)]);
static EXEMPLAR: Shape = Shape(&[(7, &PAIR)]);
static NUMBER: Shape = Shape(&[(5, &EXEMPLAR), (7, &PAIR)]);
static NUMBERS: Shape = Shape(&[(1, &NUMBER)]);
static HISTOGRAM: Shape = Shape(&[(8, &EXEMPLAR), (9, &PAIR)]);
static HISTOGRAMS: Shape = Shape(&[(1, &HISTOGRAM)]);
static EXPONENTIAL: Shape = Shape(&[(1, &PAIR), (8, &BUCKETS), (9, &BUCKETS), (11, &EXEMPLAR)]);
static EXPONENTIALS: Shape = Shape(&[(1, &EXPONENTIAL)]);
static SUMMARY: Shape = Shape(&[(6, &LEAF), (7, &PAIR)]);
static SUMMARIES: Shape = Shape(&[(1, &SUMMARY)]);
static METRIC: Shape =
    Shape(&[(5, &NUMBERS), (7, &NUMBERS), (9, &HISTOGRAMS), (10, &EXPONENTIALS), (11, &SUMMARIES)]);
static SCOPE: Shape = Shape(&[(2, &METRIC)]);
static RESOURCE: Shape = Shape(&[(1, &PAIR)]);
static RESOURCE_METRICS: Shape = Shape(&[(1, &RESOURCE), (2, &SCOPE)]);
static REQUEST: Shape = Shape(&[(1, &RESOURCE_METRICS)]);

static SCOPE_INFO: Shape = Shape(&[(3, &PAIR)]);
static RECORD: Shape = Shape(&[(5, &VALUE), (6, &PAIR)]);
static SCOPE_LOGS: Shape = Shape(&[(1, &SCOPE_INFO), (2, &RECORD)]);
static RESOURCE_LOGS: Shape = Shape(&[(1, &RESOURCE), (2, &SCOPE_LOGS)]);
static LOGS_REQUEST: Shape = Shape(&[(1, &RESOURCE_LOGS)]);

/// What a body is a request of.
#[derive(Debug, Clone, Copy)]
pub(super) enum Of {
    Metrics,
    Logs,
}

/// Refuses a body of too many messages.
pub(super) fn check(body: &[u8], is_json: bool, of: Of) -> Result<(), String> {
    let shape = match of {
        Of::Metrics => &REQUEST,
        Of::Logs => &LOGS_REQUEST,
    };
    let mut weight = Weight::default();
    if is_json {
        // Every message is an object, or a list that stands for one; those within texts only make it too high.
        weight.messages = memchr::memchr2_iter(b'{', b'[', body).count();
        weight.numbers = memchr::memchr_iter(b',', body).count();
    } else {
        count_messages(body, shape, MAX_DEPTH, &mut weight)?;
    }
    if weight.messages > MAX_MESSAGES || weight.numbers > MAX_NUMBERS {
        return Err(TOO_MANY.to_owned());
    }
    Ok(())
}

#[derive(Debug, Default)]
struct Weight {
    messages: usize,
    /// Of buckets, packed or not.
    numbers: usize,
}

/// Refuses what it cannot read: what comes behind that would not be counted.
fn count_messages(body: &[u8], shape: &Shape, depth: usize, weight: &mut Weight) -> Result<(), String> {
    let is_buckets = std::ptr::eq(shape, &raw const BUCKETS);
    let mut fields = Fields::new(body, 0);
    while let Some(field) = fields.next().map_err(|error| error.to_string())? {
        if is_buckets {
            // Packed numbers have a byte each at least.
            weight.numbers += field.bytes.map_or(1, <[u8]>::len);
        }
        let inner = shape.0.iter().find(|(number, _)| *number == field.number);
        if let (Some(bytes), Some((_, inner))) = (field.bytes, inner) {
            weight.messages += 1;
            if weight.messages > MAX_MESSAGES {
                return Err(TOO_MANY.to_owned());
            }
            let Some(depth) = depth.checked_sub(1) else {
                return Err(format!("messages lie more than {MAX_DEPTH} deep in one another"));
            };
            count_messages(bytes, inner, depth, weight)?;
        }
    }
    Ok(())
}
