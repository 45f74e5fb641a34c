//! What an operation answers, before it is bytes.

use bytes::Bytes;
use futures::stream::BoxStream;
use serde_json::Value;

/// The body of an answer.
pub enum Content {
    /// Nothing.
    Empty,
    /// JSON, indented by four spaces as MAAS clients know it.
    Json(Value),
    /// Bytes with their content type.
    Bytes(Bytes, &'static str),
    /// Bytes that come as they are read, with their length where known.
    Stream(
        BoxStream<'static, std::io::Result<Bytes>>,
        &'static str,
        Option<u64>,
    ),
}

/// An answer.
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub content: Content,
}

/// Content type of JSON answers of the 2.0 API.
pub const JSON: &str = "application/json; charset=utf-8";
/// Content type of text answers.
pub const TEXT: &str = "text/plain; charset=utf-8";

impl Answer {
    /// 200 with JSON.
    #[must_use]
    pub const fn json(value: Value) -> Self {
        Self {
            status: 200,
            headers: Vec::new(),
            content: Content::Json(value),
        }
    }

    /// 200 with anything that serialises. What cannot be serialised is a bug of ours.
    ///
    /// # Errors
    /// When the value has no JSON form.
    pub fn of<T: serde::Serialize>(value: &T) -> Result<Self, crate::error::ApiError> {
        serde_json::to_value(value)
            .map(Self::json)
            .map_err(|e| crate::error::ApiError::bug(&e.to_string()))
    }

    /// 200 with plain text.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self::bytes(Bytes::from(text.into()), TEXT)
    }

    /// 200 with bytes.
    #[must_use]
    pub const fn bytes(bytes: Bytes, content_type: &'static str) -> Self {
        Self {
            status: 200,
            headers: Vec::new(),
            content: Content::Bytes(bytes, content_type),
        }
    }

    /// 204: done, nothing to say.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            status: 204,
            headers: Vec::new(),
            content: Content::Empty,
        }
    }

    /// The same with another status.
    #[must_use]
    pub const fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// The same with a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}
