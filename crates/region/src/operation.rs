//! The operation table: every operation of the API is declared once, by the file of its noun, and
//! everything else is derived from here: dispatch, parameter checks, the describe document, the command
//! line and the permission tests.

use futures::future::BoxFuture;

use crate::answer::Answer;
use crate::call::Call;
use crate::error::ApiError;

/// HTTP methods of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// Read.
    Get,
    /// Create, or a named operation.
    Post,
    /// Update.
    Put,
    /// Delete.
    Delete,
}

impl Method {
    /// The word on the wire.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }

    /// The method of a request; `HEAD` reads like `GET`.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        match word {
            "GET" | "HEAD" => Some(Self::Get),
            "POST" => Some(Self::Post),
            "PUT" | "PATCH" => Some(Self::Put),
            "DELETE" => Some(Self::Delete),
            _ => None,
        }
    }
}

/// Which face of the product an operation belongs to; it decides the prefix of its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Face {
    /// `/MAAS/api/2.0/`: what MAAS clients expect.
    Maas2,
    /// `/MAAS/api/v1/`: our own.
    V1,
    /// `/MAAS/metadata/`: machines.
    Metadata,
    /// `/MAAS/`: log-in, images for racks.
    Web,
}

impl Face {
    /// What its paths start with.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Maas2 => "/MAAS/api/2.0/",
            Self::V1 => "/MAAS/api/v1/",
            Self::Metadata => "/MAAS/metadata/",
            Self::Web => "/MAAS/",
        }
    }
}

/// Who may call an operation at all. What exactly the caller may do to which object is decided by
/// [`crate::auth::authorize`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Who {
    /// Anybody, with or without credentials.
    Anyone,
    /// A person with a valid key.
    User,
    /// An administrator.
    Admin,
    /// A machine with its own credentials.
    Node,
    /// A machine with its own credentials, or one that nobody knows yet.
    NodeOrAnyone,
}

/// The type of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// A whole number.
    Int,
    /// `true`, `false`, `1`, `0`, `yes`, `no`, `on`, `off`.
    Bool,
    /// Several values: the name repeated, or values with commas between.
    List,
    /// Bytes: a file part, or text.
    File,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Every parameter whose name starts with this one.
    Prefix,
}

/// Whether a parameter must be there, and how its absence is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// May be left out.
    Optional,
    /// 400 with `{"name": ["This field is required."]}`.
    Field,
    /// 400 with `No provided name!` in plain text.
    Param,
}

/// A parameter of an operation, in the query or the body.
#[derive(Clone, Copy, Debug)]
pub struct Param {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Whether it must be there.
    pub need: Need,
    /// What it is for, for help and reference.
    pub doc: &'static str,
}

/// An optional text parameter, and so on: short constructors for the tables.
impl Param {
    /// An optional parameter.
    #[must_use]
    pub const fn opt(name: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self {
            name,
            kind,
            need: Need::Optional,
            doc,
        }
    }

    /// A parameter that a form requires.
    #[must_use]
    pub const fn field(name: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self {
            name,
            kind,
            need: Need::Field,
            doc,
        }
    }

    /// A parameter without which the operation makes no sense.
    #[must_use]
    pub const fn must(name: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self {
            name,
            kind,
            need: Need::Param,
            doc,
        }
    }
}

/// What the request's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Parameters: a form, multipart or JSON, at most [`MAX_FORM`] bytes.
    Form,
    /// Bytes or JSON for the operation itself, at most this many.
    Raw(usize),
}

/// Most bytes of a body with parameters.
pub const MAX_FORM: usize = 64 << 20;

/// Runs an operation.
pub type Run = fn(Call) -> BoxFuture<'static, Result<Answer, ApiError>>;

/// One operation.
#[derive(Clone, Copy)]
pub struct Operation {
    /// Which face it is on.
    pub face: Face,
    /// Name of the handler in the describe document, for example `MachinesHandler`; empty keeps the
    /// operation out of the document.
    pub handler: &'static str,
    /// Path behind the face's prefix, with `{name}` for the parts that vary. Trailing slashes count.
    pub uri: &'static str,
    /// Further paths of the same operation, which the describe document leaves out.
    pub also: &'static [&'static str],
    /// HTTP method.
    pub method: Method,
    /// The value of `op`, for operations that are no plain REST.
    pub op: Option<&'static str>,
    /// Who may call it.
    pub who: Who,
    /// One line on what it does.
    pub title: &'static str,
    /// Parameters.
    pub params: &'static [Param],
    /// What the body is.
    pub body: Body,
    /// HTTP status of success, for the documents.
    pub success: u16,
    /// Type of the audit event of an accepted change (`NODE`, `NETWORKING`, …); none for reads and for
    /// what machines report.
    pub audit: Option<&'static str>,
    /// The code.
    pub run: Run,
    /// The operation that this one is another face of.
    pub of: Option<&'static Operation>,
}

impl Operation {
    /// Defaults for a table entry: a plain read that any user may do.
    pub const READ: Self = Self {
        face: Face::Maas2,
        handler: "",
        uri: "",
        also: &[],
        method: Method::Get,
        op: None,
        who: Who::User,
        title: "",
        params: &[],
        body: Body::Form,
        success: 200,
        audit: None,
        run: |_| Box::pin(async { Err(ApiError::bug("an operation without code")) }),
        of: None,
    };

    /// The name of the action in the describe document and on the command line.
    #[must_use]
    pub const fn action(&self) -> &'static str {
        match (self.op, self.method) {
            (Some(op), _) => op,
            (None, Method::Get) => "read",
            (None, Method::Post) => "create",
            (None, Method::Put) => "update",
            (None, Method::Delete) => "delete",
        }
    }

    /// The names of the varying parts of its path, in order.
    pub fn path_params(&self) -> impl Iterator<Item = &'static str> {
        self.uri
            .split('/')
            .filter_map(|s| s.strip_prefix('{')?.strip_suffix('}'))
    }

    /// Whether callers without credentials may use it.
    #[must_use]
    pub const fn is_anonymous(&self) -> bool {
        matches!(self.who, Who::Anyone | Who::NodeOrAnyone)
    }
}

impl std::fmt::Debug for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} {}{} op={:?}",
            self.method.word(),
            self.face.prefix(),
            self.uri,
            self.op
        )
    }
}
