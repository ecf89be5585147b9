//! Files that are rotated, compressed, truncated, planted; directories that come and go.

use super::*;

#[test]
fn lines_are_followed_through_rotation_and_restart() {
    let mut bed = Bed::new();
    let mut tailer = bed.tailer();
    bed.write(3);
    round(&mut tailer);
    assert_eq!(bed.store.lines(), bed.want());
    bed.write(2);
    bed.rotate("20261121-205058");
    bed.write(2);
    bed.rotate("20261121-205059");
    bed.write(1);
    round(&mut tailer);
    assert_eq!(bed.store.lines(), bed.want(), "two rotations between two looks (L2)");
    tailer.save();
    drop(tailer);
    bed.write(2);
    round(&mut bed.tailer());
    assert_eq!(bed.store.lines(), bed.want(), "resumed at the checkpoint");
    assert_eq!(bed.telemetry.duplicates.get(), 0);
    fs::remove_dir_all(bed.dir.path().join("state")).unwrap();
    bed.write(1);
    round(&mut bed.tailer());
    assert_eq!(bed.store.lines(), bed.want(), "without a checkpoint the marks decide (L19)");
    assert_eq!(bed.telemetry.duplicates.get(), 0, "the store was asked");
}

#[test]
fn what_was_compressed_while_nobody_looked_is_read_on_where_it_was_left() {
    for has_checkpoint in [true, false] {
        let mut bed = Bed::new();
        bed.write(5);
        let mut tailer = bed.tailer();
        round(&mut tailer);
        tailer.save();
        drop(tailer);
        bed.write(4);
        for second in 0..4 {
            let stamp = format!("20261121-20505{second}");
            bed.rotate(&stamp);
            bed.write(1000);
            if second > 0 {
                bed.compress(&format!("20261121-20505{}", second - 1));
            }
        }
        fs::write(bed.rotated("20261121-205053.tmp"), "half a copy").unwrap();
        if !has_checkpoint {
            fs::remove_dir_all(bed.dir.path().join("state")).unwrap();
        }
        round(&mut bed.tailer());
        assert_eq!(bed.store.lines(), bed.want(), "L4, checkpoint {has_checkpoint}");
        assert_eq!(bed.telemetry.duplicates.get(), 0);
    }
}

#[test]
fn a_file_that_is_compressed_while_it_is_read_goes_on_in_its_copy() {
    let mut bed = Bed::new();
    let mut tailer = bed.tailer();
    bed.write(10);
    round(&mut tailer);
    bed.store.refuses.store(true, Ordering::Relaxed);
    bed.write(10);
    bed.rotate("20261121-205058");
    bed.write(5);
    round(&mut tailer);
    gzip(&bed.rotated("20261121-205058"), &bed.rotated("20261121-205058.gz"));
    round(&mut tailer);
    fs::remove_file(bed.rotated("20261121-205058")).unwrap();
    round(&mut tailer);
    bed.store.refuses.store(false, Ordering::Relaxed);
    round_until(&mut tailer, || bed.store.count() >= bed.written);
    assert_eq!(bed.store.lines(), bed.want());
    assert_eq!(bed.telemetry.lost_bytes.get(), 0);
}

#[test]
fn a_directory_that_vanishes_and_comes_back_is_read_again() {
    let mut bed = Bed::new();
    let mut tailer = bed.tailer();
    bed.write(3);
    round(&mut tailer);
    fs::rename(bed.dir.path().join("pods"), bed.dir.path().join("away")).unwrap();
    fs::create_dir_all(bed.dir.path().join(CONTAINER)).unwrap();
    bed.write(3);
    round(&mut tailer);
    assert_eq!(bed.store.lines(), bed.want());
}

#[test]
fn a_file_that_cannot_be_read_holds_no_other_back() {
    let mut bed = Bed::new();
    bed.write(3);
    bed.rotate("20261121-205058");
    bed.write(2);
    // Another file system's, such as a directory that is bound there: it cannot be opened as a file.
    fs::create_dir(bed.rotated("20261121-205059")).unwrap();
    std::os::unix::fs::symlink("nowhere", bed.rotated("20261121-205057.gz")).unwrap();
    fs::write(bed.rotated("20261121-205056.gz"), "no gzip at all").unwrap();
    round(&mut bed.tailer());
    assert_eq!(bed.store.lines(), bed.want());
}

#[test]
fn a_truncated_file_is_read_again_from_its_beginning() {
    let mut bed = Bed::new();
    let mut tailer = bed.tailer();
    bed.write(5);
    round(&mut tailer);
    fs::write(bed.log(), "2026-11-21T20:50:57Z stdout F new\n").unwrap();
    round(&mut tailer);
    assert_eq!(bed.store.lines().last().unwrap(), "new");
    assert_eq!(bed.store.count(), 6);
    // Grown beyond its old length meanwhile, so that its size tells nothing.
    let longer = (0..9).map(|i| {
        format!(
            "2026-11-21T20:51:0{i}Z stdout F other {i}
"
        )
    });
    let longer = longer.collect::<Vec<_>>().concat();
    fs::write(bed.log(), longer).unwrap();
    round(&mut tailer);
    assert_eq!(bed.store.count(), 15);
    assert_eq!(bed.telemetry.files_truncated.get(), 2);
    assert_eq!(bed.telemetry.lost_bytes.get(), 0);
}

#[test]
fn planted_links_and_pipes_are_never_read() {
    let mut bed = Bed::new();
    bed.write(1);
    let secret = bed.dir.path().join("secret.log");
    fs::write(&secret, "2026-11-21T20:50:57Z stdout F secret\n").unwrap();
    std::os::unix::fs::symlink(&secret, bed.dir.path().join("containers/evil_x_y-1.log")).unwrap();
    std::os::unix::fs::symlink(&secret, bed.log().with_file_name("1.log")).unwrap();
    let fifo = bed.log().with_file_name("2.log");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    round(&mut bed.tailer());
    assert_eq!(bed.store.lines(), bed.want());
    assert!(Path::new(&fifo).exists());
}

#[test]
fn a_hint_of_the_kernel_finds_lines_between_two_looks() {
    let mut bed = Bed::new();
    bed.write(1);
    let mut tailer = bed.tailer();
    round(&mut tailer);
    // Silent for long enough to be watched for writes.
    bed.wait(60);
    tailer.scan();
    assert!(bed.telemetry.dirs_watched.get() >= 3, "pods, the pod's and the container's");
    bed.write(2);
    assert!(!tailer.heed(), "no directory changed");
    tailer.fill();
    tailer.send();
    tailer.settle(Duration::from_millis(100));
    assert_eq!(bed.store.lines(), bed.want());
    bed.rotate("20261121-205058");
    assert!(tailer.heed(), "a reason to look");
}
