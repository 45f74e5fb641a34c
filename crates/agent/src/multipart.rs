//! `multipart/form-data` bodies (RFC 7578).

/// A form being put together.
pub struct Form {
    boundary: String,
    body: Vec<u8>,
}

/// Quotes and line breaks in names, as browsers encode them (RFC 7578 §2).
fn quoted(name: &str) -> String {
    name.replace('"', "%22")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

impl Form {
    /// An empty form. `unique` must not occur in the content that is added; a random text is enough.
    #[must_use]
    pub fn new(unique: &str) -> Self {
        Self {
            boundary: format!("steelyard-{unique}"),
            body: Vec::new(),
        }
    }

    fn part(&mut self, disposition: &str, content_type: &str, content: &[u8]) {
        let head = format!(
            "--{}\r\nContent-Disposition: form-data; {disposition}\r\nContent-Type: {content_type}\r\n\r\n",
            self.boundary
        );
        self.body.extend_from_slice(head.as_bytes());
        self.body.extend_from_slice(content);
        self.body.extend_from_slice(b"\r\n");
    }

    /// Adds a field.
    pub fn field(&mut self, name: &str, value: &str) {
        self.part(
            &format!("name=\"{}\"", quoted(name)),
            "text/plain; charset=utf-8",
            value.as_bytes(),
        );
    }

    /// Adds a file whose field name and file name are `name`.
    pub fn file(&mut self, name: &str, content: &[u8]) {
        let name = quoted(name);
        self.part(
            &format!("name=\"{name}\"; filename=\"{name}\""),
            "application/octet-stream",
            content,
        );
    }

    /// The value of `Content-Type` and the body.
    #[must_use]
    pub fn finish(mut self) -> (String, Vec<u8>) {
        self.body
            .extend_from_slice(format!("--{}--\r\n", self.boundary).as_bytes());
        (
            format!("multipart/form-data; boundary={}", self.boundary),
            self.body,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_files_are_separate_parts() {
        let mut form = Form::new("b1");
        form.field("op", "signal");
        form.file("a\"b", b"\x00\xff");
        let (kind, body) = form.finish();
        assert_eq!(kind, "multipart/form-data; boundary=steelyard-b1");
        let text = String::from_utf8_lossy(&body);
        assert!(
            text.starts_with("--steelyard-b1\r\nContent-Disposition: form-data; name=\"op\"\r\n")
        );
        assert!(text.contains("name=\"a%22b\"; filename=\"a%22b\""));
        assert!(text.ends_with("\r\n--steelyard-b1--\r\n"));
    }
}
