//! Lists, page by page.

use std::collections::VecDeque;

use api::Page;
use api::noun::Noun;
use reqwest::Method;

use crate::{Client, Error};

/// The objects of a list; a page is fetched when the one before is used up.
#[derive(Debug)]
pub struct Pages<T> {
    client: Client,
    filters: Vec<(String, String)>,
    at: VecDeque<T>,
    cursor: Option<String>,
    last: bool,
}

impl<T: Noun> Pages<T> {
    pub(crate) fn new(client: Client, filters: &[(&str, &str)]) -> Self {
        Self {
            client,
            filters: filters
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            at: VecDeque::new(),
            cursor: None,
            last: false,
        }
    }

    /// The next object.
    ///
    /// Cancel-safe: yes; a page is kept whole or asked for again.
    ///
    /// # Errors
    /// When a page cannot be had; calling again goes on.
    pub async fn next(&mut self) -> Result<Option<T>, Error> {
        while self.at.is_empty() && !self.last {
            let mut request = self
                .client
                .request(Method::GET, T::LIST)
                .query(&self.filters);
            if let Some(cursor) = &self.cursor {
                request = request.query(&[("cursor", cursor)]);
            }
            let page: Page<T> = Client::json(Client::send(request).await?).await?;
            self.last = page.next.is_none();
            self.cursor = page.next;
            self.at = page.items.into();
        }
        Ok(self.at.pop_front())
    }

    /// All that are left.
    ///
    /// # Errors
    /// When a page cannot be had.
    pub async fn all(mut self) -> Result<Vec<T>, Error> {
        let mut out = Vec::new();
        while let Some(t) = self.next().await? {
            out.push(t);
        }
        Ok(out)
    }
}
