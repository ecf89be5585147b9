//! How fast a page is read: text, OpenMetrics and protobuf. The page is made of what a node exporter and cAdvisor show.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::fmt::Write;
use std::hint::black_box;

use binnacle_collector::exposition::protobuf::{self, Entry, RowValue, Wanted};
use binnacle_collector::exposition::{Format, Line, parse};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// One sample: name, labels, value.
type Series = (String, Vec<(&'static str, String)>, f64);

fn series() -> Vec<Series> {
    let mut all = Vec::new();
    for cpu in 0..64 {
        for mode in ["idle", "iowait", "irq", "nice", "softirq", "steal", "system", "user"] {
            let value = f64::from(cpu) * 1234.56 + mode.len() as f64;
            let labels = vec![("cpu", cpu.to_string()), ("mode", mode.to_owned())];
            all.push(("node_cpu_seconds_total".to_owned(), labels, value));
        }
    }
    for metric in ["container_memory_working_set_bytes", "container_network_receive_bytes_total"] {
        for pod in 0..500u32 {
            let labels = vec![
                ("container", "app".to_owned()),
                ("id", format!("/kubepods/burstable/pod{pod:08x}/{pod:032x}")),
                ("image", format!("registry.example/app:1.2.{pod}")),
                ("namespace", "shop".to_owned()),
                ("pod", format!("payment-7d9f8b6c5-{pod:05}")),
            ];
            all.push((metric.to_owned(), labels, f64::from(pod) * 104_729.0));
        }
    }
    all
}

fn text(end: &str) -> String {
    let (mut page, mut last) = (String::new(), String::new());
    for (name, labels, value) in series() {
        if name != last {
            let _ = writeln!(page, "# HELP {name} What it is.\n# TYPE {name} gauge");
            last.clone_from(&name);
        }
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
        let _ = writeln!(page, "{name}{{{}}} {value}", labels.join(","));
    }
    page + end
}

fn put(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
}

fn protobuf_page() -> Vec<u8> {
    let mut page = Vec::new();
    let all = series();
    for of_name in all.chunk_by(|a, b| a.0 == b.0) {
        let mut family = Vec::new();
        put(&mut family, 1, of_name[0].0.as_bytes());
        family.extend([3 << 3, 1]);
        for (_, labels, value) in of_name {
            let mut metric = Vec::new();
            for (name, value) in labels {
                let mut pair = Vec::new();
                put(&mut pair, 1, name.as_bytes());
                put(&mut pair, 2, value.as_bytes());
                put(&mut metric, 1, &pair);
            }
            let gauge = [&[1 << 3 | 1][..], &value.to_le_bytes()].concat();
            put(&mut metric, 2, &gauge);
            put(&mut family, 4, &metric);
        }
        let mut framed = Vec::new();
        put(&mut framed, 0, &family);
        // Without the tag: a page is families behind their lengths.
        page.extend_from_slice(&framed[1..]);
    }
    page
}

fn exposition(c: &mut Criterion) {
    let mut group = c.benchmark_group("exposition");
    for (name, page, format) in
        [("text", text(""), Format::Text), ("openmetrics", text("# EOF\n"), Format::OpenMetrics)]
    {
        group.throughput(Throughput::BytesDecimal(page.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut sum = 0.0;
                let parsed = parse(black_box(page.as_bytes()), format, |line| {
                    if let Line::Sample { value, .. } = line {
                        sum += value;
                    }
                });
                assert!(parsed.is_ok());
                sum
            });
        });
    }
    let page = protobuf_page();
    group.throughput(Throughput::BytesDecimal(page.len() as u64));
    group.bench_function("protobuf", |b| {
        b.iter(|| {
            let mut sum = 0.0;
            let parsed = protobuf::parse(black_box(&page), Wanted::default(), |entry| {
                if let Entry::Row { value: RowValue::Float(value), .. } = entry {
                    sum += value;
                }
            });
            assert!(parsed.is_ok());
            sum
        });
    });
    group.finish();
}

criterion_group!(benches, exposition);
criterion_main!(benches);
