//! From a log query to tantivy's queries, with the meaning of [`LogQuery::matches`].

use std::ops::Bound;

use binnacle_model::log::{Field, STREAM_FIELDS};
use binnacle_model::log_query::LogQuery;
use binnacle_model::tokens::words;
use tantivy::Term;
use tantivy::query::{
    AllQuery, BooleanQuery, EmptyQuery, InvertedIndexRangeQuery, Occur, PhrasePrefixQuery, PhraseQuery,
    Query, TermQuery,
};
use tantivy::schema::IndexRecordOption;

use super::excluded::Excluded;
use super::schema::{Fields, index_key, sortable};

/// How many words a prefix at a phrase's end may stand for.
const PHRASE_PREFIX_MAX_WORDS: u32 = 50_000;

/// The query over a partition.
pub(crate) fn compile(fields: &Fields, query: &LogQuery) -> Box<dyn Query> {
    match query {
        LogQuery::All => Box::new(AllQuery),
        LogQuery::Text { field, text, prefix } => compile_text(fields, field, text, *prefix),
        LogQuery::Range { field: Field::Parsed(name), low, high } => number_range(fields, name, *low, *high),
        LogQuery::Range { .. } => Box::new(EmptyQuery),
        LogQuery::Exists(field) => match field {
            // An empty message is a line without a character, which hardly anybody asks for.
            Field::Message => prefix_query(&Term::from_field_text(fields.message, "")),
            Field::Stream(name) => prefix_query(&Term::from_field_text(stream_field(fields, name), "")),
            Field::Parsed(name) => exact(Term::from_field_text(fields.key, &index_key(name))),
        },
        LogQuery::And(parts) => clauses(fields, parts, Occur::Must),
        LogQuery::Or(parts) => clauses(fields, parts, Occur::Should),
        LogQuery::Not(part) => {
            let all: Box<dyn Query> = Box::new(AllQuery);
            Box::new(BooleanQuery::new(vec![(Occur::Must, all), (Occur::MustNot, excluded(fields, part))]))
        }
    }
}

fn excluded(fields: &Fields, part: &LogQuery) -> Box<dyn Query> {
    Box::new(Excluded(compile(fields, part)))
}

fn clauses(fields: &Fields, parts: &[LogQuery], occur: Occur) -> Box<dyn Query> {
    match parts {
        [] if occur == Occur::Must => Box::new(AllQuery),
        [] => Box::new(EmptyQuery),
        [only] => compile(fields, only),
        _ => {
            // `a AND NOT b` needs no list of all documents to take `b` from.
            let clause = |part: &LogQuery| match part {
                LogQuery::Not(part) if occur == Occur::Must => (Occur::MustNot, excluded(fields, part)),
                part => (occur, compile(fields, part)),
            };
            let mut clauses: Vec<(Occur, Box<dyn Query>)> = parts.iter().map(clause).collect();
            if clauses.iter().all(|(occur, _)| *occur == Occur::MustNot) {
                clauses.push((Occur::Must, Box::new(AllQuery)));
            }
            Box::new(BooleanQuery::new(clauses))
        }
    }
}

fn compile_text(fields: &Fields, field: &Field, text: &str, prefix: bool) -> Box<dyn Query> {
    match field {
        Field::Message => {
            phrase(text, prefix, Box::new(AllQuery), |word| Term::from_field_text(fields.message, word))
        }
        Field::Stream(name) => {
            let term = Term::from_field_text(stream_field(fields, name), &text.to_lowercase());
            if prefix { prefix_query(&term) } else { exact(term) }
        }
        Field::Parsed(name) => {
            let path = json_path(name);
            let term = |word: &str| {
                let mut term = Term::from_field_json_path(fields.text, &path, false);
                term.append_type_and_str(word);
                term
            };
            let there = exact(Term::from_field_text(fields.key, &index_key(name)));
            let as_text = phrase(text, prefix, there, term);
            let number = text.parse::<f64>().ok().filter(|_| !prefix).and_then(sortable);
            match number {
                None => as_text,
                Some(hex) => {
                    let as_number = exact(number_term(fields, &path, &hex));
                    Box::new(BooleanQuery::union(vec![as_text, as_number]))
                }
            }
        }
    }
}

/// The words of `text` one after the other; `wordless` is the answer if it has none.
fn phrase(text: &str, prefix: bool, wordless: Box<dyn Query>, term: impl Fn(&str) -> Term) -> Box<dyn Query> {
    let mut terms: Vec<Term> = words(text).map(|word| term(&word.text)).collect();
    match (terms.len(), prefix) {
        (0, _) => wordless,
        (1, false) => exact(terms.remove(0)),
        (1, true) => prefix_query(&terms[0]),
        (_, false) => Box::new(PhraseQuery::new(terms)),
        (_, true) => {
            let mut query = PhrasePrefixQuery::new(terms);
            query.set_max_expansions(PHRASE_PREFIX_MAX_WORDS);
            Box::new(query)
        }
    }
}

fn exact(term: Term) -> Box<dyn Query> {
    Box::new(TermQuery::new(term, IndexRecordOption::Basic))
}

/// Every term that begins as `prefix` does. (`PhrasePrefixQuery` of one term stops after fifty.)
fn prefix_query(prefix: &Term) -> Box<dyn Query> {
    let mut end = prefix.serialized_value_bytes().to_vec();
    while end.last() == Some(&u8::MAX) {
        end.pop();
    }
    let upper = match end.last_mut() {
        None => Bound::Unbounded,
        Some(last) => {
            *last += 1;
            let mut term = prefix.clone();
            term.set_bytes(&end);
            Bound::Excluded(term)
        }
    };
    Box::new(InvertedIndexRangeQuery::new(Bound::Included(prefix.clone()), upper))
}

fn number_range(fields: &Fields, name: &str, low: Bound<f64>, high: Bound<f64>) -> Box<dyn Query> {
    let path = json_path(name);
    let bound = |bound: Bound<f64>, open: f64| match bound {
        Bound::Included(value) => sortable(value).map(Bound::Included),
        Bound::Excluded(value) => sortable(value).map(Bound::Excluded),
        Bound::Unbounded => sortable(open).map(Bound::Included),
    };
    let low = bound(low, f64::NEG_INFINITY);
    let high = bound(high, f64::INFINITY);
    let (Some(low), Some(high)) = (low, high) else { return Box::new(EmptyQuery) };
    let term = |hex: String| number_term(fields, &path, &hex);
    Box::new(InvertedIndexRangeQuery::new(low.map(term), high.map(term)))
}

fn number_term(fields: &Fields, path: &str, hex: &str) -> Term {
    let mut term = Term::from_field_json_path(fields.number, path, false);
    term.append_type_and_str(hex);
    term
}

/// The key as tantivy's path syntax names it: one step, whatever dots are in it.
fn json_path(name: &str) -> String {
    index_key(name).replace('\\', "\\\\").replace('.', "\\.")
}

fn stream_field(fields: &Fields, name: &str) -> tantivy::schema::Field {
    let at = STREAM_FIELDS.iter().position(|field| *field == name);
    fields.stream[at.expect("Field::Stream holds one of STREAM_FIELDS")]
}
