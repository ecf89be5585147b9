use proptest::prelude::*;
use zstd::bulk::Compressor;

use super::*;
use crate::bytes::Reader;
use crate::logs::page::key_of;
use crate::logs::page::tables::Texts;

const NO_LIMIT: usize = 1 << 30;

/// The dictionary and frames of so many texts each.
fn packed(texts: &[Vec<u8>], of_frame: usize) -> (Vec<u8>, Vec<Vec<u8>>) {
    let mut prose = Prose::of(texts.iter().map(Vec::as_slice));
    texts.iter().for_each(|text| prose.push(text));
    let ranked = prose.rank();
    let mut compressor = Compressor::new(1).unwrap();
    let frame = |from: usize| {
        let to = (from + of_frame).min(texts.len());
        let bytes = texts[from..to].iter().map(Vec::len).sum();
        ranked.frame(from..to, bytes, &mut compressor).unwrap()
    };
    let frames = (0..texts.len()).step_by(of_frame).map(frame).collect();
    let mut dictionary = Vec::new();
    ranked.dictionary(&mut dictionary);
    (dictionary, frames)
}

fn unpacked(dictionary: &[u8], frames: &[Vec<u8>], bytes_max: usize) -> Option<Texts> {
    let dictionary = Dictionary::decode(&mut Reader::new(dictionary))?;
    let mut texts = Texts::default();
    for frame in frames {
        dictionary.unpack(frame, bytes_max, &mut texts)?;
    }
    Some(texts)
}

/// Texts come back; answers how many bytes they were meanwhile.
fn check(texts: &[Vec<u8>], of_frame: usize) -> usize {
    let (dictionary, frames) = packed(texts, of_frame);
    let back = unpacked(&dictionary, &frames, NO_LIMIT).expect("what was packed");
    assert_eq!(back.len(), texts.len());
    assert!(back.iter().eq(texts.iter().map(Vec::as_slice)));
    dictionary.len() + frames.iter().map(Vec::len).sum::<usize>()
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => "([A-Z]?[a-z]{1,3}[ ,.!?\n'-]{0,2}){0,20}".prop_map(String::into_bytes),
        2 => "([A-Za-z]{1,4} ){1,9}[a-z]{1,4}[.!?]{0,2}".prop_map(String::into_bytes),
        1 => "\\PC{0,30}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..60),
        1 => (0usize..300).prop_map(|count| vec![b'x'; count]),
        1 => (0usize..300).prop_map(|count| vec![b' '; count]),
    ]
}

#[test]
fn sentences_come_back() {
    let texts = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>();
    check(&texts(&[]), 1);
    check(&texts(&["", "", ""]), 2);
    check(
        &texts(&[
            "Pods are up.",
            "Pods are up. And pods are HTTP.",
            "pods are.",
            " Pods  are",
            "Pods ",
            "A. b",
        ]),
        3,
    );
    check(&texts(&["Größe", "Größe ñ", "\u{2028}", "naïve — naïve", "\x1b[31mred\x1b[0m red"]), 4);
    check(&texts(&[".", ". ", ". .", "...", "X.", "X. Y! Z? \"W", "(A) a", "_a _A 1a 1A"]), 8);
}

#[test]
fn large_texts_come_back_in_few_bytes() {
    const LARGE: usize = 16 * 1024 * 1024;
    for text in [
        vec![b'x'; LARGE],
        vec![b' '; LARGE],
        vec![0xff; LARGE],
        b"ab, ".repeat(LARGE / 4),
        b"a ".repeat(LARGE / 2),
    ] {
        assert!(check(&[text, b"a".to_vec()], 1) < LARGE / 100);
    }
}

#[test]
fn words_are_ranked_by_use_and_spelled_out_if_they_come_once() {
    let text = |at: usize| format!("the word {} of the {}", at % 700, ["old", "new"][at % 2]);
    let texts: Vec<Vec<u8>> = (0..3000).map(|at| text(at).into_bytes()).collect();
    let raw: usize = texts.iter().map(Vec::len).sum();
    assert!(check(&texts, 1000) < raw / 8);
    let once: Vec<Vec<u8>> = (0..3000u64).map(|at| format!("w{}", at * 7919).into_bytes()).collect();
    let (dictionary, _) = packed(&once, 1000);
    assert_eq!(dictionary, [0, 0]);
}

#[test]
fn more_text_than_is_allowed_is_refused() {
    let texts = [b"some words of a text".to_vec()];
    let (dictionary, frames) = packed(&texts, 1);
    assert!(unpacked(&dictionary, &frames, texts[0].len()).is_some());
    assert!(unpacked(&dictionary, &frames, texts[0].len() - 1).is_none());
}

proptest! {
    #[test]
    fn texts_come_back(texts in prop::collection::vec(text(), 0..60), of_frame in 1usize..40) {
        check(&texts, of_frame);
    }

    /// Each word of the texts is among the keys, unless colours are: see [`crate::logs::page::bodies`].
    #[test]
    fn every_word_has_its_key(texts in prop::collection::vec(text(), 0..30)) {
        let mut prose = Prose::of(texts.iter().map(Vec::as_slice));
        texts.iter().for_each(|text| prose.push(text));
        let mut keys = Vec::new();
        prose.note_words(&mut keys);
        for text in texts.iter().filter(|text| !text.contains(&0x1b)) {
            for word in binnacle_model::tokens::words(&String::from_utf8_lossy(text)) {
                prop_assert!(keys.contains(&key_of(word.text.as_bytes())), "{}", word.text);
            }
        }
    }

    #[test]
    fn changed_bytes_end_in_texts_or_in_nothing(
        texts in prop::collection::vec(text(), 1..40),
        changes in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        const BYTES_MAX: usize = 1 << 16;
        let (mut dictionary, mut frames) = packed(&texts, texts.len());
        for (in_frame, at, byte) in changes {
            let bytes = if in_frame { &mut frames[0] } else { &mut dictionary };
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        for _ in 0..2 {
            if let Some(texts) = unpacked(&dictionary, &frames, BYTES_MAX) {
                prop_assert!(texts.bytes.len() <= BYTES_MAX);
                prop_assert!(texts.ends.is_sorted());
            }
            let at = cut.index(frames[0].len() + 1);
            frames[0].truncate(at);
        }
    }

    #[test]
    fn no_bytes_panic(dictionary in prop::collection::vec(any::<u8>(), 0..100), frame in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = unpacked(&dictionary, &[frame], 1 << 16);
    }
}
