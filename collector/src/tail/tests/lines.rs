//! Lines in pieces, without an end, and of any bytes.

use super::*;

#[test]
fn partial_lines_are_joined_by_stream_and_survive_a_restart() {
    let bed = Bed::new();
    let mut tailer = bed.tailer();
    bed.raw("2026-11-21T20:50:57Z stdout P one \n2026-11-21T20:50:57Z stderr F whole\n");
    round(&mut tailer);
    assert_eq!(bed.store.lines(), [""; 0], "what stands behind an open line waits");
    drop(tailer);
    let mut tailer = bed.tailer();
    bed.raw("2026-11-21T20:50:57Z stdout P two \n2026-11-21T20:50:57Z stdout F three\n");
    round(&mut tailer);
    assert_eq!(bed.store.lines(), ["one two three", "whole"]);
    bed.raw("2026-11-21T20:50:57Z stdout P orphan\n");
    round(&mut tailer);
    assert_eq!(bed.store.count(), 2);
    bed.wait(31);
    round(&mut tailer);
    assert_eq!(bed.store.lines().last().unwrap(), "orphan");
}

#[test]
fn odd_lines_are_kept_whole() {
    let bed = Bed::new();
    let mut tailer = bed.tailer();
    bed.raw("no header at all\n\n2026-11-21T20:50:57Z stdout F \n2026-11-21T20:50:57Z stdout F no end");
    round(&mut tailer);
    assert_eq!(bed.store.lines(), ["no header at all", "", ""]);
    bed.raw(" yet\n");
    round(&mut tailer);
    assert_eq!(bed.store.lines().last().unwrap(), "no end yet");
    let odd = b"\x00\xff\xfe\x1b[31m\xe2\x80\xa8\xef\xbb\xbf \r ";
    bed.raw_bytes(&[&b"2026-11-21T20:50:58Z stdout F "[..], odd, b"\n"].concat());
    round(&mut tailer);
    assert_eq!(bed.store.state.lock().unwrap().1.last().unwrap().message, odd, "byte for byte (L13)");
}

#[test]
fn a_line_without_end_costs_bounded_memory_and_not_the_lines_after_it() {
    let bed = Bed::new();
    let mut tailer = bed.tailer();
    bed.raw(&format!("2026-11-21T20:50:57Z stdout F {}\n", "x".repeat(9 << 20)));
    bed.raw("2026-11-21T20:50:57Z stdout F after\n");
    round(&mut tailer);
    let entries = bed.store.state.lock().unwrap().1.clone();
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[0].message.len(), 1 << 20);
    let said: Vec<&str> = entries[0].fields.iter().map(|field| field.name.as_str()).collect();
    assert_eq!(said, ["truncated", "orig_len"]);
    let want = binnacle_model::push::PushValue::Int(9 << 20);
    assert_eq!(entries[0].fields[1].value.as_ref().unwrap(), &want);
    assert_eq!(entries[1].message, b"after");
}

#[test]
fn an_endless_partial_line_is_given_out_cut_and_holds_nothing_back() {
    let bed = Bed::new();
    let mut tailer = bed.tailer();
    let piece = format!("2026-11-21T20:50:57Z stdout P {}\n", "x".repeat(16_000));
    bed.raw(&piece.repeat(400));
    bed.raw("2026-11-21T20:50:57Z stderr F beside\n");
    round(&mut tailer);
    let lengths = |bed: &Bed| bed.store.lines().iter().map(String::len).collect::<Vec<_>>();
    assert_eq!(lengths(&bed), [1 << 20, 6]);
    tailer.save();
    drop(tailer);
    let mut tailer = bed.tailer();
    bed.raw("2026-11-21T20:50:57Z stdout F its end\n2026-11-21T20:50:57Z stdout F next\n");
    round(&mut tailer);
    assert_eq!(bed.store.lines().last().unwrap(), "next");
    assert_eq!(bed.store.count(), 3);
}
