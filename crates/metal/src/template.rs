//! Messages with `{words}` in them, which something else stands for.

/// Why a message cannot be filled in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// `{` or `}` alone.
    #[error("a brace stands alone; write it twice where it is meant")]
    Brace,
    /// A word that nothing stands for.
    #[error("nothing stands for {{{0}}}")]
    Unknown(String),
}

/// Checks that every word of a message is known. `{{` and `}}` are braces; what follows `.`, `[`, `!` or `:`
/// in a word says how it is shown.
///
/// # Errors
/// What is wrong with it.
pub fn check(message: &str, mut known: impl FnMut(&str) -> bool) -> Result<(), TemplateError> {
    let mut rest = message;
    while let Some(at) = rest.find(['{', '}']) {
        let brace = &rest[at..];
        if let Some(after) = brace
            .strip_prefix("{{")
            .or_else(|| brace.strip_prefix("}}"))
        {
            rest = after;
            continue;
        }
        let word = brace.strip_prefix('{').ok_or(TemplateError::Brace)?;
        let (word, after) = word.split_once('}').ok_or(TemplateError::Brace)?;
        let name = word.split(['.', '[', '!', ':']).next().unwrap_or_default();
        if !known(name) {
            return Err(TemplateError::Unknown(name.to_owned()));
        }
        rest = after;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_word_must_be_known() {
        let known = |w: &str| w == "who";
        for good in [
            "",
            "plain",
            "hello {who}",
            "{{who}} {who!r} {who.name} {who[0]:>3}",
            "}}{{",
        ] {
            assert_eq!(check(good, known), Ok(()), "{good}");
        }
        assert_eq!(
            check("{when}", known),
            Err(TemplateError::Unknown("when".to_owned()))
        );
        for bad in ["{", "}", "{who", "a } b", "{who}}"] {
            assert_eq!(check(bad, known), Err(TemplateError::Brace), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,60}") {
            let _result = check(&text, |w| w.len() % 2 == 0);
        }
    }
}
