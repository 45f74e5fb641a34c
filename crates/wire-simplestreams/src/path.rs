//! Paths in documents.

use std::fmt;

/// Longest path, in bytes.
pub const PATH_MAX: usize = 1024;

/// A path below a source's root: relative, `/` between its parts, no `.`, `..` or empty part, and
/// nothing that means something else in a URL. Safe to append to a URL and to a directory.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamPath(String);

/// Why a path is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Nothing.
    #[error("the path is empty")]
    Empty,
    /// More than [`PATH_MAX`] bytes.
    #[error("the path is longer than {PATH_MAX} bytes")]
    TooLong,
    /// Starts with a slash or names a scheme.
    #[error("the path is not relative")]
    NotRelative,
    /// Contains `.`, `..` or an empty part.
    #[error("the path has a part that is empty, `.` or `..`")]
    Dots,
    /// A control character, blank, backslash, or one of `?#%`.
    #[error("the path has a character that is not allowed")]
    Character,
}

impl StreamPath {
    /// Checks a path.
    ///
    /// # Errors
    /// [`PathError`] says which rule is broken.
    pub fn new(path: &str) -> Result<Self, PathError> {
        if path.is_empty() {
            return Err(PathError::Empty);
        }
        if path.len() > PATH_MAX {
            return Err(PathError::TooLong);
        }
        if path.starts_with('/') || path.contains("://") {
            return Err(PathError::NotRelative);
        }
        if path
            .chars()
            .any(|c| c.is_control() || c.is_whitespace() || matches!(c, '\\' | '?' | '#' | '%'))
        {
            return Err(PathError::Character);
        }
        if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(PathError::Dots);
        }
        Ok(Self(path.to_owned()))
    }

    /// The path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StreamPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_that_leave_the_root_are_refused() {
        for (path, error) in [
            ("", PathError::Empty),
            ("/etc/passwd", PathError::NotRelative),
            ("http://other/x", PathError::NotRelative),
            ("a/../b", PathError::Dots),
            ("..", PathError::Dots),
            ("a//b", PathError::Dots),
            ("a/./b", PathError::Dots),
            ("a/", PathError::Dots),
            ("a\\..\\b", PathError::Character),
            ("a/%2e%2e/b", PathError::Character),
            ("a?b", PathError::Character),
            ("a#b", PathError::Character),
            ("a\nb", PathError::Character),
        ] {
            assert_eq!(StreamPath::new(path), Err(error), "{path:?}");
        }
        assert_eq!(
            StreamPath::new(&"a".repeat(PATH_MAX + 1)),
            Err(PathError::TooLong)
        );
        assert!(StreamPath::new("streams/v1/com.ubuntu.maas:stable:v3:download.sjson").is_ok());
    }

    proptest! {
        #[test]
        fn accepted_paths_stay_below_the_root(path in "[a./\\\\%:]{0,20}") {
            if let Ok(path) = StreamPath::new(&path) {
                let full = std::path::Path::new("/root").join(path.as_str());
                prop_assert!(full.starts_with("/root"));
                prop_assert!(full.components().all(|part| part != std::path::Component::ParentDir));
            }
        }
    }
}
