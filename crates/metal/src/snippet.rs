//! Pieces of DHCP configuration in the language of the ISC server, as far as it can be told from their shape
//! that they are complete: quotes, comments, braces and semicolons.

/// Longest snippet, in bytes.
pub const VALUE_MAX: usize = 64 << 10;

/// Why a text cannot be a snippet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnippetError {
    /// Nothing in it.
    #[error("there is no statement in it")]
    Empty,
    /// Too long.
    #[error("it has more than {VALUE_MAX} bytes")]
    TooLong,
    /// A character that no configuration has.
    #[error("line {0}: a control character")]
    Control(usize),
    /// A quote that does not end.
    #[error("line {0}: the quoted text that begins here does not end")]
    Quote(usize),
    /// A brace that is not closed.
    #[error("line {0}: the brace that opens here is not closed")]
    Open(usize),
    /// A brace too many.
    #[error("line {0}: a brace closes that none opened")]
    Close(usize),
    /// A statement without its end.
    #[error("line {0}: the statement does not end with a semicolon")]
    Statement(usize),
}

/// Checks the shape of a snippet (dhcpd.conf(5)): statements that end with `;` or are blocks in braces,
/// comments from `#` to the end of the line, texts in double quotes with `\` before what is meant literally.
///
/// # Errors
/// The first thing that is wrong, with its line.
pub fn check(text: &str) -> Result<(), SnippetError> {
    if text.len() > VALUE_MAX {
        return Err(SnippetError::TooLong);
    }
    let (mut line, mut statements) = (1, 0);
    let mut open: Vec<usize> = Vec::new();
    // The line on which the statement that is not ended yet began.
    let mut pending: Option<usize> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\n' => line += 1,
            '#' => {
                if chars.by_ref().any(|c| c == '\n') {
                    line += 1;
                }
            }
            '"' => {
                let began = line;
                pending.get_or_insert(line);
                loop {
                    match chars.next() {
                        None => return Err(SnippetError::Quote(began)),
                        Some('"') => break,
                        Some('\\') => {
                            chars.next();
                        }
                        Some('\n') => line += 1,
                        Some(_) => {}
                    }
                }
            }
            '{' => {
                open.push(line);
                pending = None;
            }
            '}' => {
                if let Some(began) = pending {
                    return Err(SnippetError::Statement(began));
                }
                open.pop().ok_or(SnippetError::Close(line))?;
                statements += 1;
            }
            ';' => {
                statements += usize::from(pending.take().is_some());
            }
            c if c.is_whitespace() => {}
            c if c.is_control() => return Err(SnippetError::Control(line)),
            _ => {
                pending.get_or_insert(line);
            }
        }
    }
    if let Some(began) = open.pop() {
        return Err(SnippetError::Open(began));
    }
    if let Some(began) = pending {
        return Err(SnippetError::Statement(began));
    }
    if statements == 0 {
        return Err(SnippetError::Empty);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_complete_is_accepted() {
        for good in [
            "option x;",
            "filename \"test-boot\";\nserver-name \"boot.from.me\";\n",
            "# a comment\nclass \"foo\" {\n  match if substring(option x, 0, 1) = \"}\";\n  option y \"a\\\"b;\";\n}\n",
            "if option arch = 00:07 { filename \"a\"; } else { filename \"b\"; }",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn what_is_not_is_told_with_its_line() {
        for (bad, why) in [
            ("", SnippetError::Empty),
            ("# only this", SnippetError::Empty),
            (";;", SnippetError::Empty),
            ("option x;\noption y", SnippetError::Statement(2)),
            ("filename \"a;\n", SnippetError::Quote(1)),
            ("class \"a\" {\n option x;\n", SnippetError::Open(1)),
            ("option x;\n}\n", SnippetError::Close(2)),
            ("a {\n option x\n}", SnippetError::Statement(2)),
            ("option \u{1};", SnippetError::Control(1)),
        ] {
            assert_eq!(check(bad), Err(why), "{bad}");
        }
        assert_eq!(check(&"a;".repeat(VALUE_MAX)), Err(SnippetError::TooLong));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a\"{};#\\\\\\n ]{0,60}") {
            // Twice the same is as good as once.
            if check(&text).is_ok() {
                let joined = format!("{text}\n{text}");
                prop_assert_eq!(check(&joined), Ok(()));
            }
        }
    }
}
