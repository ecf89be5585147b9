//! Free text by words: how small it gets, beside zstd, and what packing and unpacking cost.
//!
//! `BINNACLE_TEXT` is a file with a text a line, at most 16 MiB of it; else words are made up.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]
#![allow(clippy::print_stdout, reason = "sizes are no times")]

use binnacle_store::PackedTexts;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use zstd::bulk::Compressor;

/// As in pages.
const FRAME_BYTES: usize = 128 * 1024;
const PAGE_BYTES: usize = 16 * 1024 * 1024;

fn texts() -> Vec<Vec<u8>> {
    if let Some(path) = std::env::var_os("BINNACLE_TEXT") {
        let mut bytes = binnacle_store::fs::Disk::open(&binnacle_store::fs::RealDisk, path.as_ref())
            .and_then(|file| {
                let mut bytes = vec![0; (file.size()? as usize).min(PAGE_BYTES)];
                file.read_exact_at(&mut bytes, 0)?;
                Ok(bytes)
            })
            .expect("a file with texts");
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        }
        return bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    }
    let mut state = 7u32;
    let mut word = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Few words come often, many seldom.
        let bits = (state >> 8) % 14;
        let mut rank = (1u32 << bits) + (state >> 16) % (1 << bits);
        let mut word = String::new();
        while rank > 0 {
            word += ["ka", "lo", "mi", "ne", "ru", "sa", "to", "vel"][rank as usize % 8];
            rank /= 8;
        }
        word
    };
    let text = |_| (0..15).map(|_| word()).collect::<Vec<String>>().join(" ").into_bytes();
    (0..60_000).map(text).collect()
}

fn by_zstd(texts: &[Vec<u8>], level: i32) -> usize {
    let (mut frame, mut size) = (Vec::new(), 0);
    let mut compressor = Compressor::new(level).expect("a level");
    for (at, text) in texts.iter().enumerate() {
        frame.extend_from_slice(text);
        frame.push(b'\n');
        if frame.len() >= FRAME_BYTES || at + 1 == texts.len() {
            size += compressor.compress(&frame).expect("memory").len();
            frame.clear();
        }
    }
    size
}

fn prose(c: &mut Criterion) {
    let texts = texts();
    let bytes: usize = texts.iter().map(Vec::len).sum();
    let packed = PackedTexts::pack(&texts, FRAME_BYTES).expect("memory");
    assert_eq!(packed.unpack(), Some(texts.len()));
    let share = |size: usize| size as f64 / bytes as f64;
    println!("{} texts, {bytes} bytes, share of them:", texts.len());
    for level in [1, 9, 19] {
        println!("zstd {level}: {:.3}", share(by_zstd(&texts, level)));
    }
    println!("by words: {:.3}", share(packed.stored_bytes()));
    let mut group = c.benchmark_group("prose");
    group.sample_size(20).throughput(Throughput::Bytes(bytes as u64));
    group.bench_function("zstd 1", |b| b.iter(|| by_zstd(&texts, 1)));
    group.bench_function("pack", |b| b.iter(|| PackedTexts::pack(&texts, FRAME_BYTES).expect("memory")));
    group.bench_function("unpack", |b| b.iter(|| packed.unpack()));
    group.finish();
}

criterion_group!(benches, prose);
criterion_main!(benches);
