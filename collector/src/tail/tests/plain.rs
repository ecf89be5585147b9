//! Plain files: no header, and any beginning.

use super::*;

struct Plain {
    bed: Bed,
    dir: PathBuf,
}

impl Plain {
    fn new() -> Self {
        let bed = Bed::new();
        let dir = bed.dir.path().join("plain/a");
        fs::create_dir_all(&dir).unwrap();
        Self { bed, dir }
    }

    fn tailer(&self) -> Tailer {
        let pattern = self.bed.dir.path().join("plain/*/*.log");
        self.bed.tailer_of(self.bed.options(Input::Files { pattern, service: "s".into() }))
    }

    fn append(&self, name: &str, text: &str, minute: u64) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.dir.join(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(minute * 60)).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.dir.join(from), self.dir.join(to)).unwrap();
    }
}

#[test]
fn they_are_followed_through_rotation_and_restart() {
    let plain = Plain::new();
    plain.append("app.log", "one\ntwo\n", 1);
    plain.append("app.log-20251121.xz", "packed by others\n", 0);
    plain.append("other.txt", "not asked for\n", 0);
    let mut first = plain.tailer();
    round(&mut first);
    first.save();
    assert_eq!(plain.bed.store.lines(), ["one", "two"]);
    drop(first);
    // Twice rotated while nobody looked, with lines at each end; the older one was compressed.
    plain.append("app.log", "three\n", 1);
    plain.rename("app.log", "app.log.1");
    plain.append("app.log", "four\n", 2);
    plain.rename("app.log.1", "app.log.2");
    plain.rename("app.log", "app.log.1");
    plain.append("app.log", "five\n", 3);
    gzip(&plain.dir.join("app.log.2"), &plain.dir.join("app.log.2.gz"));
    fs::remove_file(plain.dir.join("app.log.2")).unwrap();
    let packed = fs::File::open(plain.dir.join("app.log.2.gz")).unwrap();
    packed.set_modified(std::time::UNIX_EPOCH + Duration::from_mins(1)).unwrap();
    let mut second = plain.tailer();
    round(&mut second);
    assert_eq!(plain.bed.store.lines(), ["one", "two", "three", "four", "five"]);
    plain.append("app.log", "six\n", 4);
    round(&mut second);
    assert_eq!(plain.bed.store.lines().last().unwrap(), "six");
    assert_eq!(plain.bed.telemetry.duplicates.get(), 0);
}

#[test]
fn files_that_begin_alike_are_different_ones() {
    let plain = Plain::new();
    for name in ["x.log", "y.log", "z.log"] {
        plain.append(name, "# started\nline\n", 1);
    }
    let mut tailer = plain.tailer();
    round(&mut tailer);
    assert_eq!(plain.bed.store.count(), 6, "L6");
    plain.rename("x.log", "x.log.1");
    plain.append("x.log", "# started\nline\nmore\n", 2);
    round(&mut tailer);
    assert_eq!(plain.bed.store.count(), 9, "a heading that each rotation repeats");
}

#[test]
fn what_was_copied_and_truncated_is_read_on_in_the_copy() {
    let plain = Plain::new();
    plain.append("app.log", "one\ntwo\n", 1);
    let mut tailer = plain.tailer();
    round(&mut tailer);
    plain.append("app.log", "three\n", 2);
    fs::copy(plain.dir.join("app.log"), plain.dir.join("app.log.1")).unwrap();
    fs::write(plain.dir.join("app.log"), "").unwrap();
    round(&mut tailer);
    plain.append("app.log", "four\n", 3);
    round(&mut tailer);
    assert_eq!(plain.bed.store.lines(), ["one", "two", "three", "four"], "L3");
    assert_eq!(plain.bed.telemetry.lost_bytes.get(), 0);
}

#[test]
fn a_last_line_without_an_end_waits_and_is_given_out() {
    let plain = Plain::new();
    plain.append("app.log", "no end", 1);
    let mut tailer = plain.tailer();
    round(&mut tailer);
    assert_eq!(plain.bed.store.count(), 0);
    plain.append("app.log", " yet\r\nlast", 2);
    round(&mut tailer);
    assert_eq!(plain.bed.store.lines(), ["no end yet"]);
    plain.bed.wait(31);
    round(&mut tailer);
    assert_eq!(plain.bed.store.lines(), ["no end yet", "last"]);
    plain.append("app.log", " and more\n", 3);
    round(&mut tailer);
    assert_eq!(plain.bed.store.lines(), ["no end yet", "last", " and more"], "nothing of it is lost");
}

#[test]
fn a_file_that_is_compressed_beside_its_original_comes_once() {
    let plain = Plain::new();
    plain.append("app.log", "# heading\none\n", 1);
    let mut tailer = plain.tailer();
    round(&mut tailer);
    plain.append("app.log", "two\n", 2);
    plain.rename("app.log", "app.log.1");
    plain.append("app.log", "# heading\nthree\n", 3);
    gzip(&plain.dir.join("app.log.1"), &plain.dir.join("app.log.1.gz"));
    round(&mut tailer);
    fs::remove_file(plain.dir.join("app.log.1")).unwrap();
    round(&mut tailer);
    assert_eq!(plain.bed.store.lines(), ["# heading", "one", "two", "# heading", "three"]);
}

#[test]
fn a_truncated_file_that_begins_as_it_did_is_another_one() {
    let plain = Plain::new();
    plain.append("app.log", "# heading\none\ntwo\n", 1);
    let mut tailer = plain.tailer();
    round(&mut tailer);
    fs::write(plain.dir.join("app.log"), "# heading\n").unwrap();
    round(&mut tailer);
    plain.append("app.log", "three\n", 2);
    round(&mut tailer);
    tailer.save();
    drop(tailer);
    plain.append("app.log", "four\n", 2);
    let mut tailer = plain.tailer();
    round(&mut tailer);
    tailer.save();
    assert_eq!(plain.bed.store.lines(), ["# heading", "one", "two", "# heading", "three", "four"]);
    drop(tailer);
    plain.append("app.log", "five\n", 2);
    round(&mut plain.tailer());
    assert_eq!(plain.bed.store.lines().last().unwrap(), "five", "over more than one start");
    fs::write(plain.dir.join("app.log"), "# heading\nsix\n").unwrap();
    fs::remove_dir_all(plain.bed.dir.path().join("state")).unwrap();
    round(&mut plain.tailer());
    assert_eq!(plain.bed.store.lines().last().unwrap(), "six", "while nobody looked");
}

#[test]
fn lines_have_the_time_that_they_say() {
    let plain = Plain::new();
    let read = plain.bed.clock.now_ns();
    // The file was changed last on 2026-11-21 at 12:00.
    let lines = [
        ("I1121 10:00:00.500000 1 a.go:1] x", Some("2026-11-21T08:00:00.5Z")),
        ("I1231 10:00:00.000000 1 a.go:1] x", Some("2025-12-31T08:00:00Z")),
        ("2026-11-21 11:00:00,250 INFO x", Some("2026-11-21T09:00:00.25Z")),
        ("2026-11-21T11:00:00Z x", Some("2026-11-21T11:00:00Z")),
        (r#"{"ts":1795255200.5,"level":"info"}"#, Some("2026-11-21T10:00:00.5Z")),
        ("it says none", None),
    ];
    let text: Vec<&str> = lines.iter().map(|(line, _)| *line).collect();
    plain.append("app.log", &(text.join("\n") + "\n"), 1_795_262_400 / 60);
    let pattern = plain.bed.dir.path().join("plain/*/*.log");
    let input = Input::Files { pattern, service: "s".into() };
    let mut tailer = plain.bed.tailer_of(Options { zone_seconds: 7200, ..plain.bed.options(input) });
    round(&mut tailer);
    let state = plain.bed.store.state.lock().unwrap();
    assert_eq!(state.1.len(), lines.len());
    for (entry, (line, want)) in state.1.iter().zip(lines) {
        match want.map(|want| LogTime::parse_rfc3339(want).unwrap()) {
            Some(want) => assert_eq!(LogTime(entry.time_ns).to_rfc3339(), want.to_rfc3339(), "{line}"),
            None => assert!(entry.time_ns >= read.0, "{line}: when it was read"),
        }
    }
}

#[test]
fn files_of_a_node_go_on_in_what_they_were_rotated_to() {
    let plain = Plain::new();
    let input = || Input::Node { dir: plain.dir.clone(), also: vec!["syslog".into()] };
    plain.append("kube-apiserver.log", "one\n", 1);
    plain.append("syslog", "first\n", 1);
    plain.append("other.log", "not a node's\n", 1);
    fs::create_dir_all(plain.dir.join("kubernetes/audit")).unwrap();
    plain.append("kubernetes/audit/audit.log", "{\"n\":1}\n", 1);
    let mut tailer = plain.bed.tailer_of(plain.bed.options(input()));
    round(&mut tailer);
    tailer.save();
    drop(tailer);
    // As logrotate, and as the API server itself: renamed with lines at the end, then compressed, while nobody looked.
    for (from, to, line) in [
        ("kube-apiserver.log", "kube-apiserver-20261121.log", "two\n"),
        ("kubernetes/audit/audit.log", "kubernetes/audit/audit-2026-11-21T10-00-00.000.log", "{\"n\":2}\n"),
        ("syslog", "syslog.1", "second\n"),
    ] {
        plain.append(from, line, 2);
        plain.rename(from, to);
        gzip(&plain.dir.join(to), &plain.dir.join(format!("{to}.gz")));
        fs::remove_file(plain.dir.join(to)).unwrap();
        plain.append(from, "new\n", 3);
    }
    let mut tailer = plain.bed.tailer_of(plain.bed.options(input()));
    round(&mut tailer);
    let mut lines = plain.bed.store.lines();
    lines.sort();
    let want = ["first", "new", "new", "new", "one", "second", "two", "{\"n\":1}", "{\"n\":2}"];
    assert_eq!(lines, want, "each once");
    let report = tailer.report();
    let services: Vec<&str> = report.containers.iter().map(|one| one.container.as_str()).collect();
    assert_eq!(services, ["audit", "kube-apiserver", "syslog"]);
}
