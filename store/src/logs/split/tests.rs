use std::collections::HashMap;

use super::*;

#[derive(Default)]
struct TestTables {
    texts: Vec<Vec<u8>>,
    by_text: HashMap<Vec<u8>, u32>,
    id16: Vec<u64>,
    id32: Vec<u128>,
}

impl Tables for TestTables {
    fn text(&mut self, text: &[u8]) -> u32 {
        let next = self.texts.len() as u32;
        *self.by_text.entry(text.to_vec()).or_insert_with(|| {
            self.texts.push(text.to_vec());
            next
        })
    }
    fn body(&mut self, text: &[u8]) -> u32 {
        Tables::text(self, text)
    }
    fn id16(&mut self, id: u64) -> u32 {
        self.id16.push(id);
        self.id16.len() as u32 - 1
    }
    fn id32(&mut self, id: u128) -> u32 {
        self.id32.push(id);
        self.id32.len() as u32 - 1
    }
}

impl Lookup for TestTables {
    fn text(&self, number: usize) -> Option<&[u8]> {
        self.texts.get(number).map(Vec::as_slice)
    }
    fn body(&self, number: usize) -> Option<&[u8]> {
        Lookup::text(self, number)
    }
    fn id16(&self, number: usize) -> Option<u64> {
        self.id16.get(number).copied()
    }
    fn id32(&self, number: usize) -> Option<u128> {
        self.id32.get(number).copied()
    }
}

const ENTRY_NS: i64 = 1_763_892_672_345_678_901;

/// The message with `<>` for each hole, after checking that it can be put together again.
fn shape(message: &[u8]) -> String {
    let mut pieces = Pieces::default();
    split(message, ENTRY_NS, &mut pieces);
    let mut tables = TestTables::default();
    let (mut rebuilt, mut shown, mut at) = (Vec::new(), Vec::new(), 0);
    for hole in &pieces.holes {
        let constant = &message[at..hole.start as usize];
        rebuilt.extend_from_slice(constant);
        shown.extend_from_slice(constant);
        let cell = hole.time.unwrap_or_else(|| encode(hole.of(message), &mut tables));
        assert!(decode(cell, &tables, ENTRY_NS, &mut rebuilt));
        shown.extend_from_slice(b"<>");
        at = hole.end as usize;
    }
    rebuilt.extend_from_slice(&message[at..]);
    shown.extend_from_slice(&message[at..]);
    assert_eq!(rebuilt, message, "{}", String::from_utf8_lossy(message));
    String::from_utf8_lossy(&shown).into_owned()
}

#[test]
fn values_are_variables_and_keys_are_not() {
    for (message, want) in [
        ("GET /cart/8813 took 12 ms", "GET <> took <> ms"),
        (
            r#"{"ts":"2025-11-23T10:11:12.345Z","level":"info","msg":"order 68 moved","user":"ada","ok":true, "key1": "v"}"#,
            r#"{"ts":"<>","level":"info","msg":"order <> moved","user":"<>","ok":<>, "key1": "<>"}"#,
        ),
        ("uid=0 tty=NODEVssh user= rhost=10.1.2.3", "uid=<> tty=<> user= rhost=<>"),
        ("level=warn msg=\"a b\" caller=main.go:12", "level=warn msg=\"a b\" caller=<>:<>"),
        ("done in 3.5s...", "done in <>..."),
        ("\x1b[31mERROR\x1b[0m x1", "\x1b[31mERROR\x1b[0m <>"),
        ("10:11:12 up 2 days", "<> up <> days"),
        ("- [23/Nov/2025:10:11:12 +0000] \"GET /\"", "- [<>] \"GET /\""),
        ("Größe 7 naïve", "Größe <> naïve"),
        ("...", "..."),
        ("", ""),
    ] {
        assert_eq!(shape(message.as_bytes()), want);
    }
}

#[test]
fn cells_know_what_they_are() {
    let kinds = |text: &str| encode(text.as_bytes(), &mut TestTables::default()).kind().unwrap();
    for (text, kind) in [
        ("0", Kind::Int),
        ("8813", Kind::Int),
        ("007", Kind::Padded),
        ("-5", Kind::Negative),
        ("-05", Kind::Text),
        ("a_5", Kind::Text),
        ("3.50", Kind::Decimal),
        ("00.5", Kind::Prefixed),
        ("10.0.0.255", Kind::Ip),
        ("10.0.0.256", Kind::Prefixed),
        ("u-7008445", Kind::Prefixed),
        ("/api/v1/x/453", Kind::Prefixed),
        ("v12", Kind::Text),
        ("4bf92f3577b34da6", Kind::Id16),
        ("4bf92f3577b34da6a3ce929d0e0e4736", Kind::Id32),
        ("123e4567-e89b-12d3-a456-426614174000", Kind::Uuid),
        ("4BF92F3577B34DA6", Kind::Text),
        ("99999999999999999", Kind::Int),
        ("999999999999999999", Kind::Text),
        ("1.2.3", Kind::Prefixed),
    ] {
        assert_eq!(kinds(text), kind, "{text}");
    }
}

proptest::proptest! {
    #[test]
    fn any_bytes_come_back(message in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        shape(&message);
    }

    #[test]
    fn likely_text_comes_back(message in "[a-c0-9:/.=\" T+Z_-]{0,60}") {
        shape(message.as_bytes());
    }
}
