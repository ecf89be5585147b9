//! Columns as storage for PromQL's engine, and a query as PromQL's expression over them.

use std::collections::BTreeMap;

use binnacle_model::sample::is_stale;
use binnacle_model::storage::{Deadline, LabelSets, Metadata, Queryable, Series, SeriesSet, StorageError};
use binnacle_model::{Matcher, Sample, TimeRange, Timestamp};

use super::super::ast::{MetricExpr, VectorOp};
use super::Steps;
use super::columns::Columns;
use crate::promql::{
    Aggregation, Binary, Borders, Call, Expr, Grouping, Kind, Notation, Reach, Selector, Span,
};

/// The label by which a selector names its leaf.
const LEAF: &str = "__leaf__";

/// The columns of all leaves.
pub(super) struct Leaves {
    steps: Steps,
    leaves: Vec<Columns>,
}

impl Leaves {
    pub(super) fn new(steps: Steps) -> Self {
        Self { steps, leaves: Vec::new() }
    }

    /// Adds the next leaf.
    pub(super) fn push(&mut self, mut columns: Columns) {
        columns.series.sort_by(|a, b| a.0.cmp(&b.0));
        self.leaves.push(columns);
    }

    fn of(&self, matchers: &[Matcher]) -> Option<&Columns> {
        let number: usize = matchers.iter().find(|matcher| matcher.name == LEAF)?.value.parse().ok()?;
        self.leaves.get(number)
    }
}

impl Queryable for Leaves {
    fn select(
        &self,
        matchers: &[Matcher],
        _: TimeRange,
        _: &Deadline,
    ) -> Result<SeriesSet<'_>, StorageError> {
        let first = Timestamp(self.steps.start_ns.div_euclid(1_000_000));
        let step_ms = self.steps.step_ns / 1_000_000;
        let series = self.of(matchers).into_iter().flat_map(|columns| &columns.series);
        Ok(Box::new(series.map(move |(labels, values)| {
            let there = values.iter().enumerate().filter(|(_, value)| !is_stale(**value));
            let samples = there.map(|(step, value)| Sample {
                timestamp: Timestamp(first.0 + step_ms * step as i64),
                value: *value,
            });
            Ok(Series { labels: labels.clone(), samples: samples.collect(), histograms: Vec::new() })
        })))
    }

    fn series(&self, matchers: &[Matcher], _: TimeRange, _: &Deadline) -> Result<LabelSets, StorageError> {
        let series = self.of(matchers).into_iter().flat_map(|columns| &columns.series);
        Ok(LabelSets { labels: series.map(|(labels, _)| labels.clone()).collect(), warnings: Vec::new() })
    }

    fn metadata(&self) -> BTreeMap<String, Vec<Metadata>> {
        BTreeMap::new()
    }
}

/// The query in PromQL's terms; leaves are numbered from left to right.
pub(super) fn expression(expr: &MetricExpr) -> Expr {
    convert(expr, &mut 0)
}

fn convert(expr: &MetricExpr, leaves: &mut usize) -> Expr {
    let kind = match expr {
        MetricExpr::Range(_) => {
            let matcher = Matcher::equal(LEAF, &leaves.to_string());
            *leaves += 1;
            Kind::Vector(Selector {
                matchers: vec![matcher],
                name: None,
                offset: Reach::default(),
                at: None,
                borders: Borders::default(),
            })
        }
        MetricExpr::Vector(vector) => {
            let inner = convert(&vector.expr, leaves);
            match vector.op {
                VectorOp::Sort => call("sort", vec![inner]),
                VectorOp::SortDesc => call("sort_desc", vec![inner]),
                VectorOp::Aggregate(op) => Kind::Aggregate(Box::new(Aggregation {
                    op,
                    expr: inner,
                    param: vector.param.map(number),
                    grouping: vector.grouping.clone().unwrap_or(Grouping::By(Vec::new())),
                })),
            }
        }
        MetricExpr::Binary(binary) => Kind::Binary(Box::new(Binary {
            op: binary.op,
            left: convert(&binary.left, leaves),
            right: convert(&binary.right, leaves),
            returns_bool: binary.returns_bool,
            matching: binary.matching.clone(),
        })),
        MetricExpr::LabelReplace { expr, texts } => {
            let mut args = vec![convert(expr, leaves)];
            args.extend(texts.iter().map(|text| placed(Kind::Text(text.clone()))));
            call("label_replace", args)
        }
        MetricExpr::Number(value) => return number(*value),
        MetricExpr::VectorOf(value) => call("vector", vec![number(*value)]),
    };
    placed(kind)
}

fn call(name: &'static str, args: Vec<Expr>) -> Kind {
    Kind::Call(Call { name, args })
}

fn number(value: f64) -> Expr {
    placed(Kind::Number(value, Notation::Number))
}

fn placed(kind: Kind) -> Expr {
    Expr { kind, span: Span::default() }
}
