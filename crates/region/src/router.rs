//! Finds the operations of a path.

use std::collections::HashMap;

use crate::operation::{Face, Operation};

enum Segment {
    Word(&'static str),
    Part(&'static str),
}

struct Route {
    segments: Vec<Segment>,
    slash: bool,
    operations: Vec<&'static Operation>,
}

/// All paths of the operation table.
pub struct Router {
    /// By face prefix, then by the number of segments.
    routes: HashMap<Face, Vec<Route>>,
}

/// A path that was found.
pub struct Found<'a> {
    /// Its operations.
    pub operations: &'a [&'static Operation],
    /// The varying parts of the path, decoded.
    pub path: Vec<(&'static str, String)>,
}

impl Router {
    /// A router over a table.
    #[must_use]
    pub fn new(table: &[&'static Operation]) -> Self {
        let mut routes: HashMap<Face, Vec<Route>> = HashMap::new();
        for &op in table {
            for uri in std::iter::once(&op.uri).chain(op.also) {
                let segments = || uri.split('/').filter(|s| !s.is_empty());
                let slash = uri.is_empty() || uri.ends_with('/');
                let list = routes.entry(op.face).or_default();
                let same = |r: &&mut Route| {
                    r.slash == slash
                        && r.segments.len() == segments().count()
                        && r.segments.iter().zip(segments()).all(|(a, b)| match a {
                            Segment::Word(w) => *w == b,
                            Segment::Part(_) => b.starts_with('{'),
                        })
                };
                if let Some(route) = list.iter_mut().find(same) {
                    route.operations.push(op);
                } else {
                    let segments = segments()
                        .map(
                            |s| match s.strip_prefix('{').and_then(|s| s.strip_suffix('}')) {
                                Some(name) => Segment::Part(name),
                                None => Segment::Word(s),
                            },
                        )
                        .collect();
                    list.push(Route {
                        segments,
                        slash,
                        operations: vec![op],
                    });
                }
            }
        }
        // A word beats a varying part.
        for list in routes.values_mut() {
            list.sort_by_key(|r| {
                r.segments
                    .iter()
                    .filter(|s| matches!(s, Segment::Part(_)))
                    .count()
            });
        }
        Self { routes }
    }

    /// The operations of a path behind a face's prefix.
    #[must_use]
    pub fn find(&self, face: Face, path: &str) -> Option<Found<'_>> {
        let slash = path.is_empty() || path.ends_with('/');
        let given: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
        let route = self.routes.get(&face)?.iter().find(|r| {
            r.slash == slash
                && r.segments.len() == given.len()
                && r.segments.iter().zip(&given).all(|(s, g)| match s {
                    Segment::Word(w) => w == g,
                    Segment::Part(_) => true,
                })
        })?;
        let path = route
            .segments
            .iter()
            .zip(&given)
            .filter_map(|(s, g)| match s {
                Segment::Part(name) => Some((
                    *name,
                    percent_encoding::percent_decode_str(g)
                        .decode_utf8_lossy()
                        .into_owned(),
                )),
                Segment::Word(_) => None,
            })
            .collect();
        Some(Found {
            operations: &route.operations,
            path,
        })
    }
}
