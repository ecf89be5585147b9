//! Counts what a body would become, before anything is made: an empty message is two bytes on the wire and a hundred
//! in memory.

use super::super::remote_write::Fields;

/// Messages of one request.
const MAX_MESSAGES: usize = 1_000_000;

/// How deep values of attributes may lie in one another.
const MAX_DEPTH: usize = 64;

/// Which fields of a message are messages, and what they look like.
struct Shape(&'static [(u64, &'static Shape)]);

static LEAF: Shape = Shape(&[]);
static VALUE: Shape = Shape(&[(5, &VALUES), (6, &PAIRS)]);
static VALUES: Shape = Shape(&[(1, &VALUE)]);
static PAIRS: Shape = Shape(&[(1, &PAIR)]);
static PAIR: Shape = Shape(&[(2, &VALUE)]);
static EXEMPLAR: Shape = Shape(&[(7, &PAIR)]);
static NUMBER: Shape = Shape(&[(5, &EXEMPLAR), (7, &PAIR)]);
static NUMBERS: Shape = Shape(&[(1, &NUMBER)]);
static HISTOGRAM: Shape = Shape(&[(8, &EXEMPLAR), (9, &PAIR)]);
static HISTOGRAMS: Shape = Shape(&[(1, &HISTOGRAM)]);
static EXPONENTIAL: Shape = Shape(&[(1, &PAIR), (8, &LEAF), (9, &LEAF), (11, &EXEMPLAR)]);
static EXPONENTIALS: Shape = Shape(&[(1, &EXPONENTIAL)]);
static SUMMARY: Shape = Shape(&[(6, &LEAF), (7, &PAIR)]);
static SUMMARIES: Shape = Shape(&[(1, &SUMMARY)]);
static METRIC: Shape =
    Shape(&[(5, &NUMBERS), (7, &NUMBERS), (9, &HISTOGRAMS), (10, &EXPONENTIALS), (11, &SUMMARIES)]);
static SCOPE: Shape = Shape(&[(2, &METRIC)]);
static RESOURCE: Shape = Shape(&[(1, &PAIR)]);
static RESOURCE_METRICS: Shape = Shape(&[(1, &RESOURCE), (2, &SCOPE)]);
static REQUEST: Shape = Shape(&[(1, &RESOURCE_METRICS)]);

/// Refuses a body of too many messages.
pub(super) fn check(body: &[u8], is_json: bool) -> Result<(), String> {
    let count = if is_json {
        // Every message is an object; braces within texts only make the count too high.
        memchr::memchr_iter(b'{', body).count()
    } else {
        let mut count = 0;
        count_messages(body, &REQUEST, MAX_DEPTH, &mut count);
        count
    };
    if count > MAX_MESSAGES {
        return Err(format!("body has more than {MAX_MESSAGES} messages; send smaller batches"));
    }
    Ok(())
}

/// Stops where the body is no protobuf: the decoder will say so.
fn count_messages(body: &[u8], shape: &Shape, depth: usize, count: &mut usize) {
    let mut fields = Fields::new(body, 0);
    while let Ok(Some(field)) = fields.next() {
        let inner = shape.0.iter().find(|(number, _)| *number == field.number);
        if let (Some(bytes), Some((_, inner))) = (field.bytes, inner) {
            *count += 1;
            if *count > MAX_MESSAGES {
                return;
            }
            if depth > 0 {
                count_messages(bytes, inner, depth - 1, count);
            }
        }
    }
}
