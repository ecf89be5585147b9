"""Questions that would cost a server without bounds its memory, its stack or its minutes (RELIABILITY.md I9, Q1 to Q5).

Each is a name, a path, and parameters. Times of the log queries are those of the data; all have `timeout=`.
"""

LOGS = "/api/logs"
LOKI = "/loki/api/v1"
PROM = "/api/v1"


def lucene(data):
    """By Lucene's syntax."""
    unique = " OR ".join(f"nothere{n}" for n in range(1000))
    queries = {
        "leading wildcard": "*a",
        "wildcards on both ends": "*e*",
        "many wildcards": "*a*b*c*d*e*f*g*",
        "question marks": "?" * 200,
        "every word by wildcard": "/.*/ AND *",
        "1,000 ORs": unique,
        "10,000 ORs": " OR ".join(f"w{n}" for n in range(10_000)),
        "1,000 wildcards in OR": " OR ".join(f"*x{n}*" for n in range(1000)),
        "1,000 wildcards of digits in OR": " OR ".join(f"*{n}*" for n in range(1000)),
        "1,000 wildcards of digits in AND": " AND ".join(f"*{n}*" for n in range(1000)),
        "1,000 wildcards of digits, each not": " AND ".join(f"NOT *{n}z*" for n in range(1000)),
        "1,000 wildcards of a field in OR": " OR ".join(f"bytes:*{n}*" for n in range(1000)),
        "1,000 numbers in OR": " OR ".join(str(n) for n in range(1000, 2000)),
        "1,000 fields in OR": " OR ".join(f"f{n}:v{n}" for n in range(1000)),
        "5,000 ANDs": " AND ".join(f"w{n}" for n in range(5_000)),
        "NOT x 5,000": "NOT " * 5_000 + "a",
        "minus x 5,000": "-" * 5_000 + "a",
        "parentheses x 60": "(" * 60 + "error" + ")" * 60,
        "parentheses x 10,000": "(" * 10_000 + "error" + ")" * 10_000,
        "open parentheses x 16,000": "(" * 16_000,
        "quotes x 16,001": '"' * 16_001,
        "huge term": "x" * 16_000,
        "term of a megabyte": "x" * 1_000_000,
        "huge phrase": '"' + "the end of the " * 1000 + '"',
        "sloppy phrase": '"error connection closed timeout request"~1000',
        "fuzzy": "conection~2 AND requst~2 AND eror~2",
        "500 fuzzy": " OR ".join(f"word{n}~2" for n in range(500)),
        "regex without a literal": "/[a-z]+[0-9]+[a-z]+/",
        "regex of nested stars": "/(a*)*(a*)*(a*)*b/",
        "regex of alternatives": "/((a|aa|aaa|aaaa)+)+$/",
        "quantifier of a million": "/a{1000000}/",
        "nested quantifiers": "/((a{100}){100}){100}/",
        "classes of all of Unicode": "/\\p{L}{50}\\p{N}{50}\\w{50}/",
        "regex of 16 kB": "/" + "a?" * 8_000 + "/",
        "backreference": "/(a)\\1/",
        "long range": "bytes:[* TO 999999999999999999999]",
        "range of text": "message:[a TO z]",
        "range of numbers in no filter": "status:>0 AND latency_ms:>0 AND bytes:>=0",
        "CIDR of all": "ip:0.0.0.0/0 OR ip:::/0",
        "exists of everything": "_exists_:trace_id AND NOT _exists_:nothere",
        "negated everything": "NOT (error OR info OR warn OR GET OR POST)",
        "zero bytes and controls": "\x00\x01\x02 \ufffd \u202e" * 500,
        "a stack trace": "java.lang.Error: x\n" + "\tat a.b.C(D.java:1)\n" * 500,
        "boosts": " ".join(f"w{n}^{n}" for n in range(900)),
    }
    for name, query in queries.items():
        yield name, f"{LOGS}/search", {**data.span_ns, "q": query, "limit": 100}


def counts(data):
    """Counts over everything."""
    all_ = {**data.span_ns, "q": "*"}
    yield "facet of a unique field", f"{LOGS}/facets", {**all_, "field": "trace_id", "limit": 1000}
    unique = ["trace_id", "span_id", "request_id", "latency_ms", "path", "user", "ip", "bytes", "duration", "order_id"]
    yield "facets of many unique fields", f"{LOGS}/facets", {**all_, "field": unique}
    yield "facet of a unique field beside others", f"{LOGS}/facets", {**all_, "field": ["level", "trace_id", "pod"]}
    yield "facet by a part", f"{LOGS}/facets", {**all_, "field": "trace_id", "contains": "e"}
    yield "histogram of a thousand bars by regex", f"{LOGS}/histogram", {**all_, "q": "/[0-9]+ms/", "bars": 1000}
    yield "histogram with too many bars", f"{LOGS}/histogram", {**all_, "step": "1ms"}
    yield "patterns of everything", f"{LOGS}/patterns", {**all_, "bars": 1000, "limit": 1000}
    yield "fields of everything", f"{LOGS}/fields", all_
    yield "fields of a regex", f"{LOGS}/fields", {**all_, "q": "/.*[0-9].*/"}
    yield "page of 5,000", f"{LOGS}/search", {**all_, "limit": 5000}
    yield "pieces of a regex", f"{LOGS}/search", {**all_, "q": "/[a-f]+[0-9]+z/", "stream": "true"}
    yield "5,000 giant lines", f"{LOGS}/search", {**data.giant_ns, "q": "pod:giant", "limit": 5000}
    yield "giant context", f"{LOGS}/context", {**data.giant_place, "before": 1000, "after": 1000}
    yield "context beyond the bound", f"{LOGS}/context", {**data.giant_place, "before": 10_000_000}
    yield "facet of giant lines", f"{LOGS}/facets", {**data.giant_ns, "q": "pod:giant", "field": "blob", "limit": 1000}


def logql(data):
    """By LogQL."""
    all_ = '{namespace=~".+"}'
    span = f"{data.seconds}s"
    nested = all_ + " |= `e`"
    deep = f"count_over_time({nested}[1m])"
    for _ in range(50):
        deep = f"sum by (pod) ({deep})"
    label_format = " ".join(f"| label_format l{n}=`{{{{.pod}}}}{{{{.pod}}}}l{n}`" for n in range(90))
    doubling = "| label_format a=`{{.pod}}` " + " ".join("| label_format a=`{{.a}}{{.a}}`" for _ in range(40))
    by_trace = f"sum by (trace_id) (count_over_time({all_} | json [{span}]))"
    ranges = {
        "nested aggregations": deep,
        "10,000 parentheses": "(" * 10_000 + deep + ")" * 10_000,
        "huge range, tiny steps": f"sum(count_over_time({all_}[{span}]))",
        "rate by everything": f"sum by (pod, trace_id, path, status) (rate({all_} | json [1m]))",
        "quantile of unwrapped": f"quantile_over_time(0.99, {all_} | json | unwrap latency_ms [{span}]) by (pod)",
        "quantile by a unique label": f"quantile_over_time(0.5, {all_} | json | unwrap latency_ms [{span}]) by (trace_id)",
        "stddev of unwrapped": f"stddev_over_time({all_} | json | unwrap bytes [{span}])",
        "unwrap of duration": f"sum_over_time({all_} | logfmt | unwrap duration(took) [{span}])",
        "label_format x 90": f"sum by (l1) (count_over_time({all_} {label_format} [1m]))",
        "label_format doubling": f"sum by (a) (count_over_time({all_} {doubling} [1m]))",
        "line_format doubling": f"sum(count_over_time({all_} " + "| line_format `{{__line__}}{{__line__}}` " * 40 + "[1m]))",
        "regexp of everything": f"sum by (x) (count_over_time({all_} | regexp `(?P<x>.*)` [1m]))",
        "pattern of everything": f"sum by (a, b) (count_over_time({all_} | pattern `<a> <b> <_>` [1m]))",
        "count by json": by_trace,
        "a series per line": f"count_over_time({all_} | logfmt [{span}])",
        "a series per line, unwrapped": f"quantile_over_time(0.9, {all_} | logfmt | unwrap duration(took) [{span}])",
        "a series per line of JSON, unwrapped": f"quantile_over_time(0.9, {all_} | json | unwrap duration_ms | __error__=`` [{span}])",
        "topk of unique": f"topk(100000, {by_trace})",
        "binary of unique": f"{by_trace} / {by_trace}",
        "60 ranges": " + ".join([f"sum(count_over_time({all_} |~ `[a-z]+[0-9]+` [1m]))"] * 60),
        "quantifier of a million": f"sum(count_over_time({all_} |~ `a{{1000000}}` [1m]))",
        "filters x 99": f"sum(count_over_time({all_} " + "|~ `[a-z0-9]+` " * 99 + "[1m]))",
        "filters x 5,000": f"sum(count_over_time({all_} " + "|= `a` " * 5_000 + "[1m]))",
        "matchers x 2,000": "{" + ",".join(f'l{n}!="x"' for n in range(1500)) + ',app=~".+"}',
        "absent": f"absent_over_time({all_} |~ `[a-z]{{40}}[0-9]{{40}}` [{span}])",
        "decolorize and ip": f"sum(count_over_time({all_} | decolorize |= ip(`0.0.0.0/0`) [1m]))",
        "variants": f"sum(rate({all_} | json | logfmt | unpack [1s]))",
    }
    for name, query in ranges.items():
        step = {"step": "1"} if "steps" in name else {"step": str(max(1, data.seconds // 1000))}
        yield f"LogQL: {name}", f"{LOKI}/query_range", {**data.span_ns, "query": query, **step}
    yield "LogQL: too many points", f"{LOKI}/query_range", {**data.span_ns, "query": deep, "step": "1ms"}
    lines = {**data.span_ns, "query": all_ + " |~ `[a-f]+[0-9]+zz`", "limit": 5000}
    yield "LogQL: lines of a regex", f"{LOKI}/query_range", lines
    yield "Loki: series", f"{LOKI}/series", {**data.span_ns, "match[]": all_}
    volume = {**data.span_ns, "query": all_, "step": "10", "targetLabels": "pod", "aggregateBy": "labels"}
    yield "Loki: volume", f"{LOKI}/index/volume_range", volume
    yield "Loki: patterns", f"{LOKI}/patterns", {**data.span_ns, "query": all_, "step": "10"}
    detected = {**data.span_ns, "query": all_, "line_limit": 5000, "limit": 1000}
    yield "Loki: detected fields", f"{LOKI}/detected_fields", detected


def promql(data):
    """By PromQL, over so many series that no answer with all of them fits."""
    at = {"time": data.metrics_end}
    span = {"start": data.metrics_end - 3600, "end": data.metrics_end, "step": 1}
    instants = {
        "all series": '{__name__=~".+"}',
        "product of all": "exploding * on() group_left() exploding",
        "count by value": "count_values('v', exploding)",
        "label_replace": "label_replace(exploding, 'x', '$1$1$1$1', 'instance', '(.*)')",
        "a+a+… x 10,000": "+".join(["a"] * 10_000),
        "sum( x 10,000": "sum(" * 10_000 + "a" + ")" * 10_000,
        "- x 50,000": "-" * 50_000 + "a",
        "or of all": " or ".join(["exploding"] * 50),
        "regex of a million": 'exploding{instance=~"a{1000000}"}',
        "regex without a prefix": 'exploding{instance=~".*1.*2.*3.*"}',
        "sort": "sort_desc(exploding)",
        "quantile": "quantile_over_time(0.9, exploding[1h])",
    }
    for name, query in instants.items():
        yield f"PromQL: {name}", f"{PROM}/query", {**at, "query": query}
    ranges = {
        "all series, a second apart": '{__name__=~".+"}',
        "subquery": "max_over_time(rate(exploding[5m])[1h:1s])",
        "subqueries": "sum_over_time(sum_over_time(sum(exploding)[1h:1s])[1h:1s])",
        "holt": "quantile_over_time(0.5, exploding[1h:10s])",
    }
    for name, query in ranges.items():
        yield f"PromQL: {name}", f"{PROM}/query_range", {**span, "query": query}
    yield "PromQL: too many points", f"{PROM}/query_range", {**span, "start": 0, "query": "up"}
    yield "series of all", f"{PROM}/series", {"match[]": '{__name__=~".+"}'}


def all_bombs(data):
    return [*lucene(data), *counts(data), *logql(data), *promql(data)]
