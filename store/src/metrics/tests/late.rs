//! Samples in any order, beside a map that keeps the first one of each moment.

use proptest::prelude::*;

use super::*;

/// What happens to the engine.
#[derive(Debug, Clone)]
enum Step {
    /// Series, quarter of an hour, and one of few values, so that equal and other ones meet.
    Append(Vec<(usize, i64, u8)>),
    /// So many hours pass, and blocks are written.
    Pass(i64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let sample = (0..SERIES, 0..196_i64, 0..3_u8);
    prop_oneof![
        4 => prop::collection::vec(sample, 1..40).prop_map(Step::Append),
        2 => (1..7_i64).prop_map(Step::Pass),
        1 => Just(Step::Restart),
    ]
}

fn append(metrics: &Metrics, samples: &[(usize, i64, u8)], now: Timestamp) -> AppendReport {
    let names: Vec<String> = samples.iter().map(|(series, ..)| format!("m{series}")).collect();
    let quarter = HOUR_MS / 4;
    let samples: Vec<[Sample; 1]> = samples
        .iter()
        .map(|(_, at, value)| [Sample { timestamp: Timestamp(at * quarter), value: f64::from(*value) }])
        .collect();
    let batch = names.iter().zip(&samples);
    let batch: Vec<RawSeries<'_>> = batch
        .map(|(name, samples)| RawSeries { labels: name.as_bytes(), samples, histograms: &[] })
        .collect();
    metrics.append(&batch, &Plain, now).unwrap()
}

fn refused(metrics: &Metrics) -> u64 {
    metrics.telemetry.refused("duplicate") + metrics.telemetry.refused("conflicting")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn the_first_sample_of_a_moment_stays(steps in prop::collection::vec(step(), 1..30)) {
        let disk = SimDisk::default();
        let (mut metrics, mut wal) = open(&disk).unwrap();
        let mut model: BTreeMap<(usize, i64), u8> = BTreeMap::new();
        let (mut hours, mut sent, mut struck) = (24, 0, 0);
        // In the end all of it is in blocks, and was compared.
        for step in steps.into_iter().chain([Step::Pass(6), Step::Pass(6)]) {
            match step {
                Step::Append(mut samples) => {
                    samples.retain(|(_, at, _)| *at <= hours * 4);
                    append(&metrics, &samples, Timestamp(hours * HOUR_MS));
                    sent += samples.len();
                    for (series, at, value) in samples {
                        model.entry((series, at)).or_insert(value);
                    }
                }
                Step::Pass(more) => {
                    hours = (hours + more).min(49);
                    // Something new makes the rest due.
                    let newest = (0, hours * 4, 0);
                    append(&metrics, &[newest], Timestamp(hours * HOUR_MS));
                    sent += 1;
                    model.entry((newest.0, newest.1)).or_insert(newest.2);
                    maintain(&metrics, &wal, Timestamp(hours * HOUR_MS)).unwrap();
                }
                Step::Restart => {
                    struck += refused(&metrics);
                    drop((metrics, wal));
                    (metrics, wal) = open(&disk).unwrap();
                }
            }
            let found: BTreeMap<(String, i64), f64> = read(&metrics)
                .0
                .into_iter()
                .flat_map(|(name, samples)| samples.into_iter().map(move |(at, value)| ((name.clone(), at), value)))
                .collect();
            let want: BTreeMap<(String, i64), f64> = model
                .iter()
                .map(|((series, at), value)| ((format!("m{series}"), at * HOUR_MS / 4), f64::from(*value)))
                .collect();
            prop_assert_eq!(found, want);
        }
        prop_assert!(struck + refused(&metrics) <= sent as u64);
        let in_blocks: u64 = metrics.blocks().iter().map(|block| block.samples()).sum();
        prop_assert!(in_blocks <= model.len() as u64, "{} of {}", in_blocks, model.len());
    }
}

/// What came again long after its block was written makes no block, and is counted.
#[test]
fn late_samples_are_compared_with_blocks() {
    let disk = SimDisk::default();
    let (metrics, wal) = open(&disk).unwrap();
    let now = |hours: i64| Timestamp(hours * HOUR_MS);
    assert_eq!(append(&metrics, &[(0, 4, 1), (1, 4, 1), (0, 40, 1)], now(10)).appended, 3);
    maintain(&metrics, &wal, now(10)).unwrap();
    let blocks = metrics.blocks().len();
    // Equal, another value, and a moment that is new.
    let late = [(0, 4, 1), (1, 4, 2), (2, 4, 1), (0, 52, 1)];
    assert_eq!(append(&metrics, &late, now(13)).appended, 4);
    maintain(&metrics, &wal, now(13)).unwrap();
    assert_eq!((metrics.telemetry.refused("duplicate"), metrics.telemetry.refused("conflicting")), (1, 1));
    assert_eq!(metrics.blocks().iter().map(|block| block.samples()).sum::<u64>(), 4);
    assert_eq!(read(&metrics).0["m1"], [(HOUR_MS, 1.0)]);
    assert_eq!(metrics.blocks().len(), blocks + 2);
    // Of nothing new there is no block at all.
    append(&metrics, &[(0, 4, 1), (0, 60, 1)], now(15));
    maintain(&metrics, &wal, now(15)).unwrap();
    assert_eq!((metrics.telemetry.refused("duplicate"), metrics.blocks().len()), (2, blocks + 3));
}
