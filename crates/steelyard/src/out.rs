//! Words for people and output for programs. A reader that has gone away (`maas … | head`) is no error.

use std::io::{self, IsTerminal as _, Write};

/// Writes bytes to standard output.
///
/// # Errors
/// When standard output fails, but not when its reader has gone.
pub fn bytes(content: &[u8]) -> io::Result<()> {
    tolerate(io::stdout().lock(), content)
}

/// Writes a line to standard output.
///
/// # Errors
/// As for [`bytes`].
pub fn line(text: &str) -> io::Result<()> {
    bytes(format!("{text}\n").as_bytes())
}

/// Writes a line to standard error. There is nobody to tell when that fails.
pub fn complain(text: &str) {
    tolerate(io::stderr().lock(), format!("{text}\n").as_bytes()).ok();
}

/// Whether a person reads standard output.
#[must_use]
pub fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

fn tolerate(mut to: impl Write, content: &[u8]) -> io::Result<()> {
    match to.write_all(content).and_then(|()| to.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Text that came from elsewhere, without what would steer a terminal.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{b7}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_a_machine_wrote_cannot_steer_the_terminal() {
        assert_eq!(super::printable("a\u{1b}[2J\r\nb"), "a·[2J··b");
    }
}
