//! How traces look, line by line.

use regex::bytes::Regex;

/// What came last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing of a trace.
    Start,
    /// Java, Node and .NET: the exception's own line.
    Exception,
    /// One of its frames.
    Frame,
    /// Node: properties in braces behind the frames.
    Properties,
    /// Rust's anyhow: the list of causes.
    Causes,
    /// Python: the heading, or what belongs to a frame.
    Python,
    /// A frame, whose source may follow.
    PythonFrame,
    /// The exception's own line.
    PythonEnd,
    /// Between two exceptions of a chain.
    PythonChain,
    /// Go: the panic's own line.
    Panic,
    /// An empty line before a goroutine.
    BeforeGoroutine,
    /// A goroutine's heading, or a whole frame.
    Goroutine,
    /// A frame's function, whose place follows.
    Function,
    /// Ruby: the exception's own line, or a frame.
    Ruby,
    /// PHP: the exception's own line.
    Php,
    /// PHP: the heading of its frames, or a frame.
    PhpFrames,
    /// Dart: the heading, and what it says of the exception.
    Dart,
    /// Its frames.
    DartFrames,
    /// Rust: the heading of a panic, whose message follows.
    RustPanic,
    /// The message.
    RustMessage,
    /// The frames.
    RustFrames,
    /// Nothing follows.
    End,
}

use State::{
    BeforeGoroutine, Causes, Dart, DartFrames, End, Exception, Frame, Function, Goroutine, Panic, Php,
    PhpFrames, Properties, Python, PythonChain, PythonEnd, PythonFrame, Ruby, RustFrames, RustMessage,
    RustPanic, Start,
};

/// One of these is in each line that begins a trace.
pub(super) const STARTS: &[&str] = &[
    "Exception",
    "Error",
    "Throwable",
    "V8 errors stack trace",
    "Traceback (most recent call last):",
    "panic: ",
    "panic serving",
    "fatal error: ",
    "SIGQUIT: quit",
    "PHP ",
    "exception '",
    "Uncaught ",
    "Unhandled exception",
    "panicked at ",
    ".rb:",
    "goroutine ",
];

const BLANK: &str = r"^\s*$";

/// In a state, a line that fits leads to the next state; the first that fits counts.
const RULES: &[(&[State], &str, State)] = &[
    (&[Start], r"^\s*Traceback \(most recent call last\):\s*$", Python),
    (&[Start], r"^thread '.*?' (\(\d+\) )?panicked at .*:\s*$", RustPanic),
    (&[Start], r"^thread '.*?' (\(\d+\) )?panicked at ", RustMessage),
    (&[Start], r"\bpanic: ", Panic),
    (&[Start], r"http: panic serving|^SIGQUIT: quit", BeforeGoroutine),
    (&[Start], r"^fatal error: ", Panic),
    (&[Start], r"^goroutine \d+ \[[^\]]+\]:\s*$", Goroutine),
    (
        &[Start],
        r"PHP (Notice|Parse error|Fatal error|Warning):|exception '[^']+' with message '|^(PHP )?Fatal error: +Uncaught ",
        Php,
    ),
    (&[Start], r"^Unhandled exception:\s*$", Dart),
    (&[Start], r"Error \(.*\):\s*$", Ruby),
    (&[Start], r"\.rb:\d+:in [`'].*\([A-Z]\w*(::\w+)*\)\s*$", Ruby),
    (&[Start], r"(Exception|Error|Throwable|V8 errors stack trace)([:(\s]|$)", Exception),
    (&[Start], r"^Unhandled exception\. ", Exception),
    (&[Exception], r"^[\t ]*nested exception is:", Start),
    (&[Exception], BLANK, Exception),
    (&[Exception, Frame], r"^[\t ]+(eval )?at .*\{\s*$", Properties),
    (&[Exception, Frame], r"^[\t ]+(eval )?at ", Frame),
    (&[Exception, Frame], r"^[\t ]*(Caused by|Suppressed|\[CIRCULAR REFERENCE): *\S", Exception),
    (&[Exception, Frame], r"^Caused by:\s*$", Causes),
    (&[Exception, Frame], r"^[\t ]*\.\.\. \d+ (more|common frames omitted)", Frame),
    (&[Exception, Frame], r"^[\t ]*--- End of (inner exception )?stack trace", Frame),
    (&[Exception, Frame], r"^[\t ]*---> ", Exception),
    (&[Properties], r"^\}", End),
    (&[Properties], r"^[\t ]", Properties),
    (&[Causes], r"^[\t ]+\S", Causes),
    (&[Python], r#"^[\t |]+File ""#, PythonFrame),
    (&[PythonFrame], r#"^[\t |]+File ""#, PythonFrame),
    (&[PythonFrame], r"^[\t ]+\S", Python),
    // Marks below a line of source, and repeated frames.
    (&[Python], r"^[\t |]+([~^+]+\s*$|\[Previous line repeated)", Python),
    (&[Python, PythonFrame], r"^[^\s:(]+(\.[^\s:(]+)*(:|\s*$)", PythonEnd),
    (&[PythonEnd], BLANK, PythonChain),
    (&[PythonChain], BLANK, PythonChain),
    (
        &[PythonChain],
        r"^(During handling of the above exception|The above exception was the direct cause)",
        PythonChain,
    ),
    (&[PythonChain], r"^Traceback \(most recent call last\):\s*$", Python),
    (&[Panic], r"^\s*panic: |^\[signal ", Panic),
    (&[Panic, Goroutine], BLANK, BeforeGoroutine),
    (&[BeforeGoroutine], BLANK, BeforeGoroutine),
    (&[Panic, BeforeGoroutine], r"^goroutine \d+ (gp=\S+ m=\S+ (mp=\S+ )?)?\[[^\]]+\]:\s*$", Goroutine),
    (&[Goroutine], r"^created by |^[^\s()]\S*\(|^\.\.\.(additional|\d+) ", Function),
    (&[Function], r"^\s+\S", Goroutine),
    (&[Function], r"^created by |^[^\s()]\S*\(", Function),
    (&[Ruby], r"^[\t ]+.*?\.rb:\d+:in |^[\t ]+from |^  $", Ruby),
    (&[Php], r"^(PHP )?Stack trace:", PhpFrames),
    (&[PhpFrames], r"^(PHP +\d+\. |#\d)", PhpFrames),
    (&[PhpFrames], r"^\s+thrown in ", End),
    (&[Dart, DartFrames], r"^#\d+\s+\S", DartFrames),
    (&[DartFrames], r"^<asynchronous suspension>", DartFrames),
    (&[Dart], r"^", Dart),
    (&[RustPanic], r"^", RustMessage),
    (&[RustMessage], r"^stack backtrace:", RustFrames),
    (&[RustFrames], r"^\s+(\d+: |at )", RustFrames),
    (&[RustMessage, RustFrames], r"^note: (run with|[Ss]ome details are omitted)", End),
];

/// The rules, by state.
#[derive(Debug)]
pub(super) struct Table(Vec<Vec<(Regex, State)>>);

impl Table {
    pub(super) fn new() -> Self {
        let mut by_state = vec![Vec::new(); End as usize + 1];
        for (states, pattern, next) in RULES {
            // A test builds them all.
            let Ok(regex) = Regex::new(pattern) else { continue };
            states.iter().for_each(|state| by_state[*state as usize].push((regex.clone(), *next)));
        }
        Self(by_state)
    }

    /// Where a line leads, if it belongs to what came before it.
    pub(super) fn next(&self, state: State, line: &[u8]) -> Option<State> {
        // Nested exceptions begin as others do.
        self.0[state as usize].iter().find(|(regex, _)| regex.is_match(line)).map(|(_, next)| *next)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> (usize, usize) {
        let states = RULES.iter().map(|(states, ..)| states.len()).sum();
        (self.0.iter().map(Vec::len).sum(), states)
    }
}
