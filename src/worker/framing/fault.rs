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
        match self {
            Fault::LineEnd => Refusal::bad("a line does not end in CR LF\n"),
            Fault::EmptyLines => Refusal::bad("there are empty lines before the request\n"),
            Fault::Line => Refusal::bad("the request line is invalid\n"),
            Fault::Version => Refusal {
                status: StatusCode::HTTP_VERSION_NOT_SUPPORTED,
                reason: "this server speaks HTTP/1.1 and HTTP/1.0\n",
            },
            Fault::LineTooLong => Refusal::LINE,
            Fault::FieldsTooLarge => Refusal::FIELDS,
            Fault::Length => Refusal::bad("the Content-Length field is invalid\n"),
            Fault::LengthTooLarge => Refusal::BODY,
            Fault::Lengths => Refusal::bad("there is more than one Content-Length field\n"),
            Fault::LengthAndEncoding => Refusal::bad("there are both Content-Length and Transfer-Encoding\n"),
            Fault::Encoding => Refusal::bad("the Transfer-Encoding field is not a single chunked\n"),
            Fault::UnknownEncoding => Refusal {
                status: StatusCode::NOT_IMPLEMENTED,
                reason: "this server knows no transfer coding but chunked\n",
            },
            Fault::EncodingInOld => Refusal::bad("HTTP/1.0 has no Transfer-Encoding\n"),
            Fault::Chunk => Refusal::bad("the size of a chunk is invalid\n"),
            Fault::ChunkEnd => Refusal::bad("a chunk does not end where its size says\n"),
            Fault::Extension => Refusal::bad("a chunk's extension is invalid\n"),
            Fault::ExtensionsTooLarge => {
                Refusal::bad("the chunks' extensions are larger than this server takes\n")
            }
            Fault::Trailer => Refusal::bad("a trailer field is invalid\n"),
            Fault::TrailersTooLarge => Refusal {
                status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                reason: "the trailer fields are more or larger than this server takes\n",
            },
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.refusal().reason.trim_end())
    }
}

impl Error for Fault {}
