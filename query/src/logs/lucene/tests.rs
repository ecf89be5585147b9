use std::ops::Bound;

use binnacle_model::log::{Field, LogEntry, Origin};
use binnacle_model::log_query::{IpRange, LogRegex, Phrase, Test, Wildcard};
use binnacle_model::{Labels, LogTime};
use proptest::prelude::*;

use super::*;

fn now() -> LogTime {
    LogTime::parse_rfc3339("2026-11-20T10:11:12Z").unwrap()
}

fn read(text: &str) -> (String, Option<String>) {
    let parsed = parse(text, now()).unwrap();
    (print(&parsed.query).unwrap(), parsed.hint())
}

/// The text means that, and there is nothing to say about it.
fn check(text: &str, want: &str) {
    assert_eq!(read(text), (want.to_owned(), None), "{text}");
}

/// The text means that, and a note says why.
fn noted(text: &str, want: &str, why: &str) {
    let (printed, hint) = read(text);
    assert_eq!(printed, want, "{text}");
    assert!(hint.as_deref().is_some_and(|hint| hint.contains(why)), "{text}: {hint:?}");
}

/// The text is a phrase as a whole.
fn pasted(text: &str, why: &str) {
    let parsed = parse(text, now()).unwrap();
    assert_eq!(parsed.query, LogQuery::phrase(text), "{text}");
    let hint = parsed.hint().unwrap();
    assert!(
        hint.starts_with("searched for the whole text as a phrase: ") && hint.contains(why),
        "{text}: {hint}"
    );
}

#[test]
fn words_and_what_joins_them() {
    check("", "*");
    check("*", "*");
    check("*:*", "*");
    check("error", r#"message:"error""#);
    check(r#""health check""#, r#"message:"health check""#);
    check(r#""health check"~3"#, r#"message:"health check"~3"#);
    check(r#""health ch"*"#, r#"message:"health ch"*"#);
    check("a b", r#"(message:"a" AND message:"b")"#);
    check("a AND b OR c", r#"((message:"a" AND message:"b") OR message:"c")"#);
    check("a || b && c", r#"(message:"a" OR (message:"b" AND message:"c"))"#);
    check("a OR (b c)", r#"(message:"a" OR (message:"b" AND message:"c"))"#);
    check("+a +b", r#"(message:"a" AND message:"b")"#);
    check("NOT a -b !c", r#"(NOT message:"a" AND NOT message:"b" AND NOT message:"c")"#);
    check("-(a OR b)", r#"NOT (message:"a" OR message:"b")"#);
    check("foo-bar", r#"message:"foo-bar""#);
    check("or", r#"message:"or""#);
    check(r"a\:b \(c\)", r#"(message:"a:b" AND message:"(c)")"#);
    check(r#""a \"b\" C:\dir""#, r#"message:"a \"b\" C:\\dir""#);
    noted("a or b", r#"(message:"a" AND message:"or" AND message:"b")"#, "written OR at column 3");
    noted("a^2 \"b c\"^1.5 (d)^3", r#"(message:"a" AND message:"b c" AND message:"d")"#, "changes nothing");
    noted("a||b", r#"message:"a||b""#, "spaces around");
    noted("status>=500", r#"message:"status>=500""#, "key:>=5");
    noted(r#""conn* x""#, r#"message:"conn* x""#, "stands for itself");
}

#[test]
fn fields_of_audit_events_have_short_names() {
    check("verb:delete", r#"verb:"delete""#);
    check("user:alice", r#"(user:"alice" OR user.username:"alice")"#);
    check("NOT user:al*", "NOT (user:al* OR user.username:al*)");
    check("code:>=400", "(code:[400 TO *] OR responseStatus.code:[400 TO *])");
    check(
        "resource:(pods OR secrets)",
        r#"((resource:"pods" OR resource:"secrets") OR (objectRef.resource:"pods" OR objectRef.resource:"secrets"))"#,
    );
    check("_exists_:subresource", "(_exists_:subresource OR _exists_:objectRef.subresource)");
    check("user.username:bob", r#"user.username:"bob""#);
}

#[test]
fn wildcards_edits_and_expressions() {
    check("conn*", "message:conn*");
    check("*fused", "message:*fused");
    check("con?ection", "message:con?ection");
    check("C*N", "message:c*n");
    check(r"con\*", r#"message:"con*""#);
    check("pod:web-*-?", r"pod:web\-*\-?");
    check("path:/api/*", r"path:\/api\/*");
    check(r"who:a\*b*", r"who:a\*b*");
    check("10.0.1*", r#"message:"10.0.1"*"#);
    check("10.0.*", r#"message:"10.0.""#);
    noted("10.*.0.1", r"message:/(?i)\b10\.\S*\.0\.1\b/", "slow");
    noted("*.example.com", r"message:/(?i)\S*\.example\.com\b/", "slow");
    noted("wha?", "message:wha?", "one character");
    check("conection~", "message:conection~2");
    check("x~1", "message:x~1");
    check("x~0", r#"message:"x""#);
    check("pod:Web-1~1", r"pod:web\-1~1");
    noted("foo-bar~1", "(message:foo~1 AND message:bar~1)", "each of which");
    noted("x~7", "message:x~2", "2 edits are the most");
    noted("roam~0.8", r#"message:"roam""#, "similarity");
    check("~/x", r#"message:"~/x""#);
    check("/ref.sed|Reset/", "message:/ref.sed|Reset/");
    check("/took: [0-9]+:/ x", r#"(message:/took: [0-9]+:/ AND message:"x")"#);
    check("-/a:b/", "NOT message:/a:b/");
    check("path:/^\\/api\\/v[12]$/", r"path:/^\/api\/v[12]$/");
    check("path:/var/log/app", r#"path:"/var/log/app""#);
    check("/var/log/app", r#"message:"/var/log/app""#);
    pasted("/a(b/", "unclosed group");
}

#[test]
fn fields_and_their_values() {
    check("level:ERROR", r#"level:"ERROR""#);
    noted("level:warning", r#"level:"warn""#, "searched as");
    check("k8s.namespace.name:shop", r#"namespace:"shop""#);
    check("severity:error", r#"level:"error""#);
    check("kubernetes.pod.name:web-1", r#"pod:"web-1""#);
    check("_exists_:kubernetes.namespace_name", "_exists_:namespace");
    check("log.level:error", r#"level:"error""#);
    check("user.name:*", "_exists_:user.name");
    check("_exists_:trace_id", "_exists_:trace_id");
    check("NOT _exists_:trace_id", "NOT _exists_:trace_id");
    check(r"pod:web\ 1", r#"pod:"web 1""#);
    check(r"first\ name:x", r#"first\ name:"x""#);
    check(r"a:\=?", r"a:\=?");
    check("log:x", r#"message:"x""#);
    check("message:*", "_exists_:message");
    check(
        r#"log:(WARN OR ERROR) AND namespace:shop -"health check""#,
        r#"((message:"WARN" OR message:"ERROR") AND namespace:"shop" AND NOT message:"health check")"#,
    );
    check("a:(b c:d -e)", r#"(a:"b" AND c:"d" AND NOT a:"e")"#);
    check(r#"pod:IN [a "b c", d*]"#, r#"(pod:"a" OR pod:"b c" OR pod:d*)"#);
    check("status: IN [500 503]", r#"(status:"500" OR status:"503")"#);
    check("status:IN [500]", r#"status:"500""#);
    check("url:http://foo/bar", r#"url:"http://foo/bar""#);
}

#[test]
fn ranges_compare_what_they_hold() {
    check("status:>=500", "status:[500 TO *]");
    check("status:> 500", "status:{500 TO *]");
    check("status:<-1.5", "status:[* TO -1.5}");
    check("status:[500 TO 599}", "status:[500 TO 599}");
    check("status:{* to 5]", "status:[* TO 5]");
    check("status:[* TO *]", "_exists_:status");
    check("age:(>=10 AND <20)", "(age:[10 TO *] AND age:[* TO 20})");
    check("name:[alfa TO Beta}", r#"name:["alfa" TO "beta"}"#);
    noted(r#"name:["1" TO "5"]"#, r#"name:["1" TO "5"]"#, "without them it is a number");
    noted("took:>5ms", r#"took:["5ms" TO *]"#.replace('[', "{").as_str(), "compared as text");
    noted("status:[5 TO 1]", "status:[5 TO 1]", "nothing lies");
    noted("message:>5", "message:{5 TO *]", "name a field");
    check("ip:10.0.0.0/24", "ip:[10.0.0.0 TO 10.0.0.255]");
    check("message:10.0.0.0/24", "message:[10.0.0.0 TO 10.0.0.255]");
    check("ip:[10.0.0.1 TO 10.0.0.9}", "ip:[10.0.0.1 TO 10.0.0.8]");
    check("ip:>=2001:db8::1", "ip:[2001:db8::1 TO ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]");
    pasted("ip:[10.0.0.9 TO 10.0.0.1]", "no address");
    noted("10.0.0.0/24", r#"message:"10.0.0.0/24""#, "message:10.0.0.0/24");
    check("ts:>now-1h", "ts:{2026-11-20T09:11:12.000000000Z TO *]");
    check("level:>=error", r#"(level:"error" OR level:"fatal")"#);
    check("level:{debug TO warn}", r#"level:"info""#);
}

#[test]
fn the_entrys_own_time() {
    let day = "@timestamp:[2026-11-20T00:00:00.000000000Z TO 2026-11-21T00:00:00.000000000Z}";
    for text in
        ["@timestamp:2026-11-20", "time:now/d", "timestamp:[2026-11-20 TO now/d]", "time:\"2026-11-20\""]
    {
        check(text, day);
    }
    check("time:>2026-11-20", "@timestamp:[2026-11-21T00:00:00.000000000Z TO *]");
    check("time:>=now-90s", "@timestamp:[2026-11-20T10:09:42.000000000Z TO *]");
    check("time:<1700000000", "@timestamp:[* TO 2023-11-14T22:13:20.000000000Z}");
    check("time:*", "*");
    noted("time:soon", r#"time:"soon""#, "no time");
    noted("time:>soon", r#"time:{"soon" TO *]"#, "no time");
}

#[test]
fn pasted_text_never_fails() {
    pasted(r#"{"json":1}"#, "a word was expected at column 1");
    pasted(r#""unclosed"#, "a quote is not closed at column 1");
    pasted("(a", "an open parenthesis is not closed at column 3");
    pasted("a)", "closing bracket");
    pasted("key: value", "a value is missing behind the colon; write key:value at column 4");
    pasted("level:", "a value is missing");
    pasted("at com.shop.Cart.add(Cart.java:12)", "a bracket or quote within a word at column 21");
    pasted("[ERROR] it failed", "a word was expected");
    pasted("a[0]", "bracket");
    pasted(r#""json":1"#, "right behind a quote");
    pasted("status:[1 5]", "TO is missing");
    pasted("AND", "before the operator");
    pasted("a AND", "a word was expected");
    pasted("a OR OR b", "before the operator");
    pasted("NOT \u{1f980}", "excluded");
    noted("-", r#"message:"-""#, "no letter or digit");
    for (text, why) in [
        ("10.0.0.1:8080", "cannot be the name of a field"),
        ("http://foo/bar?x=[1]", "URL"),
        (r"C:\Windows\x", "path"),
        ("foo::bar", "two colons"),
        ("2026-11-20T10:11:12Z", "cannot be the name of a field"),
        (":8080", "nothing stands before"),
    ] {
        noted(text, &print(&LogQuery::phrase(text)).unwrap(), why);
        noted(&format!("({text})"), &print(&LogQuery::phrase(text)).unwrap(), why);
    }
    noted("a - b", r#"(message:"a" AND message:"-" AND message:"b")"#, "no letter or digit");
    noted("a != b", r#"(message:"a" AND message:"!=" AND message:"b")"#, "no letter or digit");
    noted(r"path:\srv\x", r#"path:"\\srv\\x""#, "stands for itself");
}

/// Each is an error, or silently something else, for the parser that comes with the index.
#[test]
fn what_others_read_wrongly_is_found() {
    let entry = LogEntry {
        time: now(),
        received: now(),
        stream: Labels::new([("service", "payment")]).unwrap(),
        level: "error".into(),
        message: br#"{"msg":"connection to http://foo at 10.0.0.7:8080 refused","ip":"10.0.0.7","code":500,"user":{"id":"u1"},"path":"/var/log","ts":"2026-11-20T10:11:11Z"}"#.to_vec(),
        attributes: Vec::new(),
        origin: Origin::default(),
    };
    let found = |text: &str| parse(text, now()).unwrap().query.matches(&entry);
    for text in [
        "conn*",
        "*fused",
        "con?ection",
        "conection~",
        "connectoin~1",
        "level:info || code:500",
        "level:error && code:500",
        "!absent",
        "NOT absent",
        "-absent",
        "/ref.sed/",
        "ts:>now-1h",
        "ip:10.0.0.0/24",
        "_exists_:user.id",
        "10.0.0.7:8080",
        "http://foo",
        "path:/var/log",
        "\"msg\":\"connection",
        "user.id:u1",
        "level:ERROR",
        "code:[500 TO 599]",
        "code:>=500",
        "code:IN [500 503]",
        "refused^2",
        "\"connection refused\"~10",
        "\"connection to ht\"*",
        "level:(ERROR OR WARN)",
        "time:now/d",
        "\"at 10.0.0.7",
        "(refused",
    ] {
        assert!(found(text), "{text}");
    }
    for text in [
        "level:info || code:200",
        "!refused",
        "ip:10.0.1.0/24",
        "ts:<now-1h",
        "/Refused/",
        "_exists_:user.name",
    ] {
        assert!(!found(text), "{text}");
    }
}

#[test]
fn bombs_are_refused() {
    let refused = |text: String, why: &str| {
        let error = parse(&text, now()).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    };
    refused("(".repeat(5000), "nested deeper than 64");
    refused("NOT ".repeat(3000), "nested deeper than 64");
    refused("-".repeat(3000) + "x", "nested deeper than 64");
    refused("a ".repeat(2000), "more than 1024 conditions");
    refused(format!("a:IN [{}]", "b ".repeat(2000)), "more than 1024 conditions");
    refused("x".repeat(17_000), "longer than 16384 bytes");
    refused(format!("/{}/", "x".repeat(300)), "more than 256 bytes");
    refused(r"/(\pL{100}){100}/".to_owned(), "more than 1 MB");
    assert!(parse(&"a: ".repeat(4000), now()).unwrap().notes.len() <= MAX_NOTES);
    assert!(parse(&"a::b ".repeat(900), now()).unwrap().notes.len() <= MAX_NOTES);
}

fn field() -> impl Strategy<Value = Field> {
    prop_oneof![
        Just(Field::Message),
        Just(Field::Stream("pod")),
        "[a-z_@][a-z0-9_.@/ :*-]{0,6}".prop_map(|name| Field::named(&format!("x{name}"))),
    ]
}

fn bound<T: std::fmt::Debug + Clone>(
    of: impl Strategy<Value = T> + Clone,
) -> impl Strategy<Value = Bound<T>> {
    prop_oneof![of.clone().prop_map(Bound::Included), of.prop_map(Bound::Excluded)]
}

fn test_of_value() -> impl Strategy<Value = Test> {
    let text =
        "[a-zA-Z0-9é\"\\\\*?~:/ ()-]{1,8}".prop_filter("a word", |text| text.contains(char::is_alphanumeric));
    let phrase = (text, 0u32..5, any::<bool>()).prop_map(|(text, slop, is_prefix)| {
        let phrase = Phrase::new(&text).with_slop(slop);
        Test::Phrase(if is_prefix { phrase.with_prefix() } else { phrase })
    });
    let sign = prop_oneof![Just(Ok('a')), Just(Ok('_')), Just(Ok('é')), Just(Err('*')), Just(Err('?'))];
    let wildcard = proptest::collection::vec(sign, 0..6)
        .prop_map(|pieces| Test::Wildcard(Wildcard::new([Ok('b'), Err('?')].into_iter().chain(pieces))));
    let fuzzy = ("[a-z0-9_é]{1,6}", 1u8..3).prop_map(|(word, distance)| Test::Fuzzy { word, distance });
    let regex = "[a-z/][a-z.+/ ]{0,6}"
        .prop_filter_map("a pattern", |text| LogRegex::new(&text).ok().map(Test::Regex));
    let number = (bound(-1e9..1e9), bound(-1e9..1e9)).prop_map(|(low, high)| Test::Number { low, high });
    let time = any::<i64>().prop_map(LogTime);
    let time = (bound(time.clone()), bound(time)).prop_map(|(low, high)| Test::Time { low, high });
    let texts = (bound("[a-z0-9\" ]{0,5}"), bound("[a-z0-9\\\\ ]{0,5}"))
        .prop_map(|(low, high)| Test::Text { low, high });
    let ip =
        any::<u32>().prop_map(|bits| Test::Ip(IpRange::between(bits.into_v4(), [255; 4].into()).unwrap()));
    prop_oneof![phrase, wildcard, fuzzy, regex, number, time, texts, ip]
}

trait IntoV4 {
    fn into_v4(self) -> std::net::IpAddr;
}

impl IntoV4 for u32 {
    fn into_v4(self) -> std::net::IpAddr {
        std::net::IpAddr::V4(self.into())
    }
}

fn query() -> impl Strategy<Value = LogQuery> {
    let time = any::<i64>().prop_map(LogTime);
    let leaf = prop_oneof![
        Just(LogQuery::All),
        (field(), test_of_value()).prop_map(|(field, test)| LogQuery::Value { field, test }),
        field().prop_map(LogQuery::Exists),
        (bound(time.clone()), bound(time)).prop_map(|(low, high)| LogQuery::Time { low, high }),
    ];
    leaf.prop_recursive(4, 20, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 2..4).prop_map(LogQuery::And),
            proptest::collection::vec(inner.clone(), 2..4).prop_map(LogQuery::Or),
            inner.prop_map(|part| LogQuery::Not(Box::new(part))),
        ]
    })
}

proptest! {
    #[test]
    fn a_query_printed_is_read_as_the_same(query in query()) {
        let printed = print(&query).unwrap();
        let again = parse(&printed, now()).unwrap();
        prop_assert_eq!(again.query, query, "{}", printed);
    }

    #[test]
    fn any_text_is_a_query_that_can_be_printed(text in "([a-c()\\[\\]{}\"\\\\:*?<>=&|!+ ~^/,-1.@_Té]|TO |OR |AND |NOT |IN |a:|time:|level:|now|10.0.0.1|error){0,12}") {
        let query = parse(&text, now()).unwrap().query;
        if let Some(printed) = print(&query) {
            let again = parse(&printed, now()).unwrap();
            prop_assert_eq!(again.query, query, "{}", printed);
        }
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,60}", now in any::<i64>()) {
        let _ = parse(&text, LogTime(now));
    }
}
