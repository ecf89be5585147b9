use proptest::prelude::*;

use super::*;

#[test]
fn a_request_survives_a_round_trip() {
    let labels = Labels::new([("__name__", "up"), ("job", "a")]).unwrap();
    let samples = [
        Sample { timestamp: Timestamp(-5), value: binnacle_model::STALE_NAN },
        Sample { timestamp: Timestamp(1 << 50), value: -0.0 },
    ];
    let body = encode_write_request([(&labels, &samples[..]), (&labels, &samples[..1])]);
    let request = write_request(&body).unwrap();
    let batch = request.batch();
    assert_eq!(batch.len(), 2);
    assert_eq!(batch[0].samples, samples);
    assert_eq!(batch[0].labels, batch[1].labels);
    assert_eq!(WireLabels.decode(batch[0].labels), Ok(labels));
}

#[test]
fn exemplars_need_no_metric_name_and_no_long_labels() {
    let pair = |name: &str, value: &str| {
        let mut out = Vec::new();
        put_labels(&mut out, [(name, value)]);
        out
    };
    let exemplar = |labels: Vec<u8>| {
        let mut out = labels;
        out.extend([2 << 3 | 1, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f, 3 << 3, 7]);
        out
    };
    let mut series = pair("__name__", "m");
    put_bytes(&mut series, 3, &exemplar(pair("trace_id", "abc")));
    put_bytes(&mut series, 3, &exemplar(pair(&"x".repeat(600), "y")));
    let mut body = Vec::new();
    put_bytes(&mut body, 1, &series);
    let request = write_request(&body).unwrap();
    let found = request.exemplars();
    assert_eq!(found.len(), 1);
    let one = &found[0].exemplar;
    assert_eq!(
        (one.labels.to_string(), one.value, one.timestamp.0),
        ("{trace_id=\"abc\"}".to_owned(), 1.5, 7)
    );
    assert_eq!(WireLabels.decode(found[0].series).unwrap().metric_name(), "m");
}

#[test]
fn scattered_labels_are_gathered() {
    let label = |name: &str| {
        let mut part = Vec::new();
        put_bytes(&mut part, 1, name.as_bytes());
        put_bytes(&mut part, 2, b"x");
        part
    };
    let mut series = Vec::new();
    put_bytes(&mut series, 1, &label("__name__"));
    put_bytes(&mut series, 2, &[1 << 3 | 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    put_bytes(&mut series, 1, &label("b"));
    let mut body = Vec::new();
    put_bytes(&mut body, 1, &series);
    let request = write_request(&body).unwrap();
    let labels = WireLabels.decode(request.batch()[0].labels).unwrap();
    assert_eq!(labels.to_string(), r#"x{b="x"}"#);
}

proptest! {
    /// Whatever the fast path takes, the slow one reads alike.
    #[test]
    fn usual_samples_are_read_as_others(
        body in proptest::collection::vec(any::<u8>(), 0..14),
        value in any::<u64>(),
        time in any::<u64>(),
    ) {
        let mut usual = vec![1 << 3 | 1];
        usual.extend_from_slice(&value.to_le_bytes());
        usual.push(2 << 3);
        put_varint(&mut usual, time);
        for body in [usual.clone(), [&usual[..10], &body].concat(), body] {
            let fast = usual_sample(&body);
            let mut slow = Sample { timestamp: Timestamp(0), value: 0.0 };
            let mut fields = Fields::new(&body, 0);
            while let Ok(Some(field)) = fields.next() {
                match field.number {
                    1 => slow.value = f64::from_bits(field.number_value),
                    2 => slow.timestamp = Timestamp(field.number_value as i64),
                    _ => {}
                }
            }
            if let Some(fast) = fast {
                prop_assert_eq!((fast.timestamp, fast.value.to_bits()), (slow.timestamp, slow.value.to_bits()));
            }
        }
        prop_assert!(time >> 63 != 0 || usual_sample(&usual).is_some());
    }

    #[test]
    fn foreign_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(request) = write_request(&body) {
            for series in request.batch() {
                let _ = WireLabels.decode(series.labels);
            }
        }
    }
}
