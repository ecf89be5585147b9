//! Where lines are printed: standard output, or a pager if that is a terminal.

use std::io::{self, IsTerminal, Write};
use std::process::{Child, ChildStdin, Command, Stdio};

/// Standard output, perhaps through a pager.
pub(super) struct Output {
    pager: Option<(Child, ChildStdin)>,
    /// Whether a person looks at it.
    pub(super) is_terminal: bool,
}

impl Output {
    /// Standard output as it is.
    pub(super) fn plain() -> Self {
        Self { pager: None, is_terminal: io::stdout().is_terminal() }
    }

    /// Through `PAGER`, or `less` if it is there, where a person looks.
    pub(super) fn paged() -> Self {
        let mut output = Self::plain();
        if output.is_terminal {
            output.pager = start(std::env::var("PAGER").ok().as_deref());
        }
        output
    }

    /// Waits until the reader has seen enough.
    pub(super) fn finish(mut self) -> io::Result<()> {
        let flushed = self.flush();
        if let Some((mut child, stdin)) = self.pager.take() {
            drop(stdin);
            child.wait()?;
        }
        flushed
    }
}

fn start(pager: Option<&str>) -> Option<(Child, ChildStdin)> {
    let mut command = match pager.map(str::trim) {
        Some("" | "cat") => return None,
        Some(pager) => {
            let mut shell = Command::new("sh");
            shell.args(["-c", pager]);
            shell
        }
        None => {
            let mut less = Command::new("less");
            less.arg("-FRX");
            less
        }
    };
    let mut child = command.stdin(Stdio::piped()).spawn().ok()?;
    let stdin = child.stdin.take()?;
    Some((child, stdin))
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.pager {
            Some((_, stdin)) => stdin.write(bytes),
            None => io::stdout().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.pager {
            Some((_, stdin)) => stdin.flush(),
            None => io::stdout().flush(),
        }
    }
}
