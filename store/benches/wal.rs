//! What an append to the write-ahead log costs: without a sync, and with one shared by a batch.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::sync::Arc;

use binnacle_store::fs::RealDisk;
use binnacle_store::wal::{Floor, RecordKind, Wal};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

fn wal(c: &mut Criterion) {
    let mut group = c.benchmark_group("wal");
    for size in [256, 4096, 65_536] {
        let payload = vec![7u8; size];
        group.throughput(Throughput::Bytes(size as u64));
        for (name, commit_every) in [("append", u64::MAX), ("append and commit every 100th", 100)] {
            group.bench_function(format!("{name}, {size} bytes"), |b| {
                let dir = tempfile::tempdir().expect("a folder for the log");
                let opened =
                    Wal::open(Arc::new(RealDisk), dir.path(), &Floor::default(), &mut |_, _, _, _| {});
                let (wal, _) = opened.expect("an empty folder");
                let mut appended = 0;
                b.iter_batched(
                    || (),
                    |()| {
                        let sequence =
                            wal.append(RecordKind::Lines, |_, out| out.extend_from_slice(&payload));
                        appended += 1;
                        if appended % commit_every == 0 {
                            wal.commit(sequence).expect("a healthy disk");
                        }
                        // A run must not fill the disk with files that a store would have removed.
                        if appended % 1000 == 0 {
                            wal.commit_all().expect("a healthy disk");
                            wal.seal();
                            let through = wal.sealed().last().map(|file| file.id).unwrap_or_default();
                            wal.remove_through(through).expect("a healthy disk");
                        }
                    },
                    BatchSize::SmallInput,
                );
            });
        }
    }
    group.finish();
}

criterion_group!(benches, wal);
criterion_main!(benches);
