//! What follows the profile on the command line: options, resource, action, what varies in the path,
//! `key=value`.

use std::path::Path;

use anyhow::Context as _;

use super::Usage;
use super::describe::{Action, Resource};

/// A command line, sorted but not yet understood.
#[derive(Debug, Default)]
pub struct Line {
    /// `-h` or `--help`.
    pub help: bool,
    /// `-d` or `--debug`: show the headers of the answer.
    pub debug: bool,
    /// `-k` or `--insecure`: do not check certificates.
    pub insecure: bool,
    /// `--table` or `--json`: how to print the answer, whatever reads it.
    pub form: Option<Form>,
    words: Vec<String>,
}

/// How an answer is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Table,
    /// As it came.
    Json,
}

/// A value to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `key=text`.
    Text(String),
    /// `key@=path`: what is in the file.
    File(Vec<u8>),
}

impl Value {
    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(t) => t.as_bytes(),
            Self::File(b) => b,
        }
    }
}

/// The arguments of an action.
#[derive(Debug)]
pub struct Arguments {
    /// What varies in the path, in order.
    pub path: Vec<String>,
    /// `key=value`, in order; a key may be repeated.
    pub data: Vec<(String, Value)>,
    /// Paths of files that are not read here but sent in pieces: `content@=…` of boot resources.
    pub big: Option<String>,
}

impl Line {
    /// Sorts options from words. What stands behind `--` is a word.
    ///
    /// # Errors
    /// For an option that there is not.
    pub fn parse(arguments: &[String]) -> Result<Self, Usage> {
        let mut line = Self::default();
        let mut arguments = arguments.iter();
        while let Some(a) = arguments.next() {
            match a.as_str() {
                "--" => {
                    line.words.extend(arguments.cloned());
                    break;
                }
                "-h" | "--help" => line.help = true,
                "-d" | "--debug" => line.debug = true,
                "-k" | "--insecure" => line.insecure = true,
                "--table" => line.form = Some(Form::Table),
                "--json" => line.form = Some(Form::Json),
                option if option.starts_with('-') && option.len() > 1 && !option.contains('=') => {
                    return Err(Usage(format!("there is no option {option}")));
                }
                _ => line.words.push(a.clone()),
            }
        }
        Ok(line)
    }

    /// The first word.
    #[must_use]
    pub fn resource(&self) -> Option<&str> {
        self.words.first().map(String::as_str)
    }

    /// The second word.
    #[must_use]
    pub fn action(&self) -> Option<&str> {
        self.words.get(1).map(String::as_str)
    }

    /// The rest, as the arguments of an action.
    ///
    /// # Errors
    /// [`Usage`] when something is missing or too much, or when a file cannot be read.
    pub fn arguments(
        &self,
        typed: &str,
        resource: &Resource,
        action: &Action,
    ) -> anyhow::Result<Arguments> {
        let rest = self.words.get(2..).unwrap_or(&[]);
        let path: Vec<String> = rest.iter().take(resource.params.len()).cloned().collect();
        if path.len() < resource.params.len() {
            let missing: Vec<String> = resource.params[path.len()..]
                .iter()
                .map(|p| p.to_uppercase())
                .collect();
            return Err(Usage(format!(
                "{typed} needs {}; see \"{typed} --help\"",
                missing.join(" ")
            ))
            .into());
        }
        let mut arguments = Arguments {
            path,
            data: Vec::new(),
            big: None,
        };
        for word in &rest[resource.params.len()..] {
            if resource.name == "sshkeys" && action.name == "import" && !word.contains('=') {
                // `maas PROFILE sshkeys import gh:USER`.
                arguments
                    .data
                    .push(("keysource".to_owned(), Value::Text(word.clone())));
                continue;
            }
            let Some((key, value)) = word.split_once('=') else {
                return Err(Usage(format!(
                    "{word}: parameters have the form KEY=VALUE or KEY@=FILE"
                ))
                .into());
            };
            if !action.takes_data() {
                return Err(Usage(format!("{typed} takes no parameters: {word}")).into());
            }
            match key.strip_suffix('@') {
                None => arguments
                    .data
                    .push((key.to_owned(), Value::Text(value.to_owned()))),
                Some("content") if resource.name == "boot-resources" && action.name == "create" => {
                    arguments.big = Some(value.to_owned());
                }
                Some(key) => {
                    let content = std::fs::read(Path::new(value))
                        .with_context(|| format!("{key}@={value} cannot be read"))?;
                    arguments.data.push((key.to_owned(), Value::File(content)));
                }
            }
        }
        Ok(arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Result<Line, Usage> {
        Line::parse(&text.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    fn resource(doc: &str) -> Resource {
        Resource {
            name: "thing".to_owned(),
            doc: String::new(),
            params: vec!["system_id".to_owned(), "id".to_owned()],
            path: "/t/{system_id}/{id}/".to_owned(),
            actions: vec![Action {
                name: "do".into(),
                method: "POST".into(),
                op: None,
                doc: doc.into(),
            }],
        }
    }

    #[test]
    fn options_may_stand_anywhere_and_a_value_may_look_like_one() {
        let l = line("thing -d do abc 1 name=-x=y -k -- -z=1").unwrap();
        assert!(l.debug && l.insecure && !l.help);
        let r = resource(":param name: x");
        let a = l.arguments("p", &r, &r.actions[0]).unwrap();
        assert_eq!(a.path, ["abc", "1"]);
        let text = |k: &str, v: &str| (k.to_owned(), Value::Text(v.to_owned()));
        assert_eq!(a.data, [text("name", "-x=y"), text("-z", "1")]);
        assert!(line("thing --foo").is_err());
    }

    #[test]
    fn what_is_missing_or_too_much_is_told() {
        let (with, without) = (resource(":param name: x"), resource("none"));
        for (text, r, expected) in [
            ("thing do abc", &with, "p needs ID; see \"p --help\""),
            (
                "thing do a 1 word",
                &with,
                "word: parameters have the form KEY=VALUE or KEY@=FILE",
            ),
            ("thing do a 1 k=v", &without, "p takes no parameters: k=v"),
        ] {
            let e = line(text)
                .unwrap()
                .arguments("p", r, &r.actions[0])
                .unwrap_err();
            assert_eq!(e.downcast::<Usage>().unwrap().to_string(), expected);
        }
    }

    #[test]
    fn a_file_is_read_where_the_key_ends_in_at() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, [0_u8, 255]).unwrap();
        let r = resource(":param script: x");
        let a = line(&format!("thing do a 1 script@={}", path.display())).unwrap();
        let a = a.arguments("p", &r, &r.actions[0]).unwrap();
        assert_eq!(a.data, [("script".to_owned(), Value::File(vec![0, 255]))]);
    }
}
