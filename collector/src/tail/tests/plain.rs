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
