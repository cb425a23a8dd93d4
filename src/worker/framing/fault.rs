//! What can be wrong with a request's framing, and what the client is told. Not here: how it is found.

use crate::worker::gate::Refusal;
use http::StatusCode;
use std::error::Error;
use std::fmt;

/// The first thing that is wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::worker) enum Fault {
    /// A line that ends in LF alone.
    LineEnd = 1,
    /// More empty lines before the request line than anybody sends.
    EmptyLines,
    /// The request line does not end in a version.
    Line,
    /// It ends in that of another protocol, or of a later one.
    Version,
    LineTooLong,
    FieldsTooLarge,
    /// A Content-Length that is no number.
    Length,
    /// A number that no body can have.
    LengthTooLarge,
    /// Two of them, equal or not.
    Lengths,
    /// Beside a Transfer-Encoding.
    LengthAndEncoding,
    /// A Transfer-Encoding that does not end in `chunked`, or names it twice.
    Encoding,
    /// A transfer coding before `chunked`.
    UnknownEncoding,
    /// HTTP/1.0 has none.
    EncodingInOld,
    /// The size of a chunk, or what stands behind it.
    Chunk,
    /// The data of a chunk do not end where its size says.
    ChunkEnd,
    Extension,
    ExtensionsTooLarge,
    Trailer,
    TrailersTooLarge,
}

impl Fault {
    const ALL: [Fault; 19] = [
        Fault::LineEnd,
        Fault::EmptyLines,
        Fault::Line,
        Fault::Version,
        Fault::LineTooLong,
        Fault::FieldsTooLarge,
        Fault::Length,
        Fault::LengthTooLarge,
        Fault::Lengths,
        Fault::LengthAndEncoding,
        Fault::Encoding,
        Fault::UnknownEncoding,
        Fault::EncodingInOld,
        Fault::Chunk,
        Fault::ChunkEnd,
        Fault::Extension,
        Fault::ExtensionsTooLarge,
        Fault::Trailer,
        Fault::TrailersTooLarge,
    ];

    /// As it was cast to a number; 0 is none.
    pub(in crate::worker) fn of(code: u8) -> Option<Fault> {
        Fault::ALL.get(usize::from(code).wrapping_sub(1)).copied()
    }

    /// Found when the app may have the request already.
    pub(in crate::worker) fn is_of_body(self) -> bool {
        self as u8 >= Fault::Chunk as u8
    }

    pub(in crate::worker) fn refusal(self) -> Refusal {
        let (status, reason) = match self {
            Fault::LineEnd => (StatusCode::BAD_REQUEST, "a line does not end in CR LF\n"),
            Fault::EmptyLines => (StatusCode::BAD_REQUEST, "there are empty lines before the request\n"),
            Fault::Line => (StatusCode::BAD_REQUEST, "the request line is invalid\n"),
            Fault::Version => {
                (StatusCode::HTTP_VERSION_NOT_SUPPORTED, "this server speaks HTTP/1.1 and HTTP/1.0\n")
            }
            Fault::LineTooLong => {
                (StatusCode::URI_TOO_LONG, "the request line is longer than this server takes\n")
            }
            Fault::FieldsTooLarge => return Refusal::FIELDS,
            Fault::Length => (StatusCode::BAD_REQUEST, "the Content-Length field is invalid\n"),
            Fault::LengthTooLarge => return Refusal::BODY,
            Fault::Lengths => (StatusCode::BAD_REQUEST, "there is more than one Content-Length field\n"),
            Fault::LengthAndEncoding => {
                (StatusCode::BAD_REQUEST, "there are both Content-Length and Transfer-Encoding\n")
            }
            Fault::Encoding => {
                (StatusCode::BAD_REQUEST, "the Transfer-Encoding field is not a single chunked\n")
            }
            Fault::UnknownEncoding => {
                (StatusCode::NOT_IMPLEMENTED, "this server knows no transfer coding but chunked\n")
            }
            Fault::EncodingInOld => (StatusCode::BAD_REQUEST, "HTTP/1.0 has no Transfer-Encoding\n"),
            Fault::Chunk => (StatusCode::BAD_REQUEST, "the size of a chunk is invalid\n"),
            Fault::ChunkEnd => (StatusCode::BAD_REQUEST, "a chunk does not end where its size says\n"),
            Fault::Extension => (StatusCode::BAD_REQUEST, "a chunk's extension is invalid\n"),
            Fault::ExtensionsTooLarge => {
                (StatusCode::BAD_REQUEST, "the chunks' extensions are larger than this server takes\n")
            }
            Fault::Trailer => (StatusCode::BAD_REQUEST, "a trailer field is invalid\n"),
            Fault::TrailersTooLarge => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "the trailer fields are more or larger than this server takes\n",
            ),
        };
        Refusal { status, reason }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.refusal().reason.trim_end())
    }
}

impl Error for Fault {}
