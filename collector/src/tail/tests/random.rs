//! A kubelet that rotates, compresses and deletes at random, a collector that dies at random, and a store that is away
//! at times: nothing is lost or doubled, and the order is kept.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Act {
    Write(usize),
    /// A line in two pieces, with one of the other stream between them.
    Pieces,
    /// The beginning of a line, without its end.
    Half,
    Rotate,
    Compress,
    /// Copies the newest rotated file beside itself and lets both stand for a while.
    StartCompressing,
    Look,
    /// Reads, and sends nothing.
    Read,
    Away(bool),
    /// A request that failed, perhaps of a process that is no more, comes after all.
    Arrive,
    Kill {
        saved: bool,
    },
    LoseCheckpoint,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => (1usize..40).prop_map(Act::Write),
        2 => Just(Act::Pieces),
        1 => Just(Act::Half),
        3 => Just(Act::Rotate),
        2 => Just(Act::Compress),
        1 => Just(Act::StartCompressing),
        4 => Just(Act::Look),
        1 => Just(Act::Read),
        2 => any::<bool>().prop_map(Act::Away),
        1 => Just(Act::Arrive),
        2 => any::<bool>().prop_map(|saved| Act::Kill { saved }),
        1 => Just(Act::LoseCheckpoint),
    ];
    proptest::collection::vec(act, 1..40)
}

/// What the store knows, and how the collector ends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mode {
    /// The store says how far it has files.
    Marks,
    /// It does not, and the collector dies.
    Crashes,
    /// It does not, and the collector is stopped as it should be.
    Stops,
}

struct World {
    mode: Mode,
    bed: Bed,
    want: Vec<String>,
    rotations: usize,
    /// Rotated and not compressed, oldest first.
    rotated: Vec<String>,
    half: Option<String>,
}

impl World {
    fn line(&mut self, stream: &str, tag: &str, text: &str) {
        if let Some(rest) = self.half.take() {
            self.bed.raw(&rest);
        }
        let at = self.bed.written;
        self.bed.written += 1;
        self.bed.raw(&format!("2026-11-21T20:50:57.{at:09}Z {stream} {tag} {text}\n"));
    }

    fn numbered(&mut self, stream: &str) {
        let text = format!("line {}", self.bed.written);
        self.want.push(text.clone());
        self.line(stream, "F", &text);
    }

    fn rotate(&mut self) {
        if !self.bed.log().exists() {
            return;
        }
        // The runtime finishes its line before it opens the next file.
        if let Some(rest) = self.half.take() {
            self.bed.raw(&rest);
        }
        let stamp = format!("20261121-2{:05}", self.rotations);
        self.rotations += 1;
        self.bed.rotate(&stamp);
        self.rotated.push(stamp);
    }

    fn act(&mut self, act: &Act, tailer: &mut Tailer) {
        match act {
            Act::Write(count) => (0..*count).for_each(|_| self.numbered("stdout")),
            Act::Pieces => {
                let place = self.want.len();
                self.line("stdout", "P", "a ");
                self.numbered("stderr");
                let whole = format!("a b{}", self.bed.written);
                self.want.insert(place, whole.clone());
                self.line("stdout", "F", &whole[2..]);
            }
            Act::Half => {
                let at = self.bed.written;
                self.line("stdout", "F", "");
                let text = format!("half {at}");
                self.want.push(String::new());
                self.want.push(text.clone());
                self.bed.raw(&format!("2026-11-21T20:50:58.{at:09}Z stdou"));
                self.half = Some(format!("t F {text}\n"));
            }
            Act::Rotate => self.rotate(),
            // The kubelet leaves the newest as it is.
            Act::Compress if self.rotated.len() > 1 => {
                let stamp = self.rotated.remove(0);
                self.bed.compress(&stamp);
            }
            Act::StartCompressing if self.rotated.len() > 1 => {
                let stamp = &self.rotated[0];
                gzip(&self.bed.rotated(stamp), &self.bed.rotated(&format!("{stamp}.gz")));
            }
            Act::Look => round(tailer),
            Act::Read => {
                tailer.scan();
                tailer.ask();
                tailer.settle(Duration::from_millis(50));
                tailer.fill();
            }
            Act::Away(away) => self.bed.store.refuses.store(*away, Ordering::Relaxed),
            Act::Kill { saved } => {
                if self.mode == Mode::Stops {
                    tailer.finish();
                } else if *saved {
                    tailer.save();
                }
                *tailer = self.bed.tailer();
            }
            // There the checkpoint is all that is known, and nobody can tell what of a request is there already.
            Act::LoseCheckpoint | Act::Arrive if self.mode != Mode::Marks => {}
            Act::Arrive => self.bed.store.arrive(),
            Act::LoseCheckpoint => {
                let _ = fs::remove_file(self.bed.dir.path().join("state/checkpoints.json"));
            }
            Act::Compress | Act::StartCompressing => {}
        }
    }
}

/// Plays, and then lets the collector read what is left. Answers how many lines the store was sent twice.
fn play(acts: &[Act], mode: Mode) -> Result<u64, TestCaseError> {
    let (bed, want, rotated) = (Bed::new(), Vec::new(), Vec::new());
    bed.store.has_no_marks.store(mode != Mode::Marks, Ordering::Relaxed);
    let mut world = World { mode, bed, want, rotations: 0, rotated, half: None };
    let mut tailer = world.bed.tailer();
    for act in acts {
        world.act(act, &mut tailer);
    }
    world.bed.store.refuses.store(false, Ordering::Relaxed);
    if let Some(rest) = world.half.take() {
        world.bed.raw(&rest);
    }
    if mode == Mode::Stops {
        tailer.finish();
    }
    // Another one, so that no test waits for a sender that waits.
    tailer = world.bed.tailer();
    for _ in 0..20 {
        round(&mut tailer);
        if world.bed.store.count() >= world.want.len() {
            break;
        }
    }
    prop_assert_eq!(world.bed.store.lines(), world.want);
    prop_assert_eq!(world.bed.telemetry.lost_bytes.get(), 0);
    Ok(world.bed.telemetry.duplicates.get())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_or_doubled(acts in acts()) {
        play(&acts, Mode::Marks)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    /// Where the checkpoint is all that is known, it is enough; only what was taken since it was written comes again.
    #[test]
    fn without_marks_nothing_is_lost(acts in acts()) {
        play(&acts, Mode::Crashes)?;
        prop_assert_eq!(play(&acts, Mode::Stops)?, 0);
    }
}
