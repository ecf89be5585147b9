//! How fast a page is read. The page is made of what a node exporter and cAdvisor show.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::fmt::Write;
use std::hint::black_box;

use binnacle_collector::exposition::{Format, Line, parse};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn page() -> String {
    let mut page = String::new();
    page.push_str("# HELP node_cpu_seconds_total Seconds the CPUs spent in each mode.\n# TYPE node_cpu_seconds_total counter\n");
    for cpu in 0..64 {
        for mode in ["idle", "iowait", "irq", "nice", "softirq", "steal", "system", "user"] {
            let value = f64::from(cpu) * 1234.56 + mode.len() as f64;
            let _ = writeln!(page, "node_cpu_seconds_total{{cpu=\"{cpu}\",mode=\"{mode}\"}} {value}");
        }
    }
    for pod in 0..500 {
        for metric in ["container_memory_working_set_bytes", "container_network_receive_bytes_total"] {
            let _ = writeln!(
                page,
                "{metric}{{container=\"app\",id=\"/kubepods/burstable/pod{pod:08x}/{pod:032x}\",image=\"registry.example/app:1.2.{pod}\",namespace=\"shop\",pod=\"payment-7d9f8b6c5-{pod:05}\"}} {} 1700000000000",
                u64::from(pod as u32) * 104_729
            );
        }
    }
    page
}

fn exposition(c: &mut Criterion) {
    let page = page();
    let mut group = c.benchmark_group("exposition");
    group.throughput(Throughput::Bytes(page.len() as u64));
    group.bench_function("parse", |b| {
        b.iter(|| {
            let mut sum = 0.0;
            let parsed = parse(black_box(page.as_bytes()), Format::Text, |line| {
                if let Line::Sample { value, .. } = line {
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
