//! The stream of changes: server-sent events (HTML Living Standard §9.2.6), as far as the region sends them.

use api::Change;
use reqwest::Response;

use crate::Error;

/// Most bytes of one event.
const MAX_EVENT: usize = 64 << 10;

/// What the stream tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Where the stream begins.
    Position(String),
    /// An object changed.
    Change(Change),
}

/// A stream of changes.
#[derive(Debug)]
pub struct Changes {
    response: Response,
    buffer: Vec<u8>,
}

impl Changes {
    pub(crate) fn new(response: Response) -> Self {
        Self {
            response,
            buffer: Vec::new(),
        }
    }

    /// The next event; none when the region ended the stream (come again with the last position).
    ///
    /// Cancel-safe: yes.
    ///
    /// # Errors
    /// [`Error::StartAgain`] when the history was replaced; when the connection broke.
    pub async fn next(&mut self) -> Result<Option<Event>, Error> {
        loop {
            while let Some(end) = self.buffer.windows(2).position(|w| w == b"\n\n") {
                let event: Vec<u8> = self.buffer.drain(..end + 2).collect();
                if let Some(event) = parse(&String::from_utf8_lossy(&event))? {
                    return Ok(Some(event));
                }
            }
            if self.buffer.len() > MAX_EVENT {
                return Err(Error::StartAgain);
            }
            match self.response.chunk().await? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }
}

fn parse(text: &str) -> Result<Option<Event>, Error> {
    let (mut name, mut data, mut id) = ("", String::new(), "");
    for line in text.lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => name = value,
            "data" => data.push_str(value),
            "id" => id = value,
            _ => {}
        }
    }
    match name {
        "position" => Ok(Some(Event::Position(id.to_owned()))),
        "change" => Ok(Some(Event::Change(serde_json::from_str(&data)?))),
        "reset" => Err(Error::StartAgain),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_passed_over_and_changes_read() {
        assert_eq!(parse(": alive\n\n").unwrap(), None);
        let text = "event: change\nid: 1.0.2\ndata: {\"position\":\"1.0.2\",\"noun\":\"zone\",\"object\":\"3\",\"revision\":0,\"at\":5}\n\n";
        let Some(Event::Change(c)) = parse(text).unwrap() else {
            panic!("no change");
        };
        assert_eq!((c.noun.as_str(), c.object.as_str()), ("zone", "3"));
        assert!(matches!(
            parse("event: reset\ndata: {}\n\n"),
            Err(Error::StartAgain)
        ));
    }
}
