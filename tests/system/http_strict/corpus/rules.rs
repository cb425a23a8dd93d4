//! What RFC 9110 and RFC 9112 demand of a server that reads requests, as far as it is tried here. Not here: the requests.

/// As RFC 2119 has it; `May` where the server has chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http_strict) enum Level {
    Must,
    Should,
    May,
}

/// Each demand once: its name, the section, how strong it is, and what it says.
macro_rules! rules {
    ($($rule:ident: $section:literal, $level:ident, $text:literal;)*) => {
        /// A demand. The table has them in this order.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(in crate::http_strict) enum Rule {
            $($rule,)*
        }

        impl Rule {
            pub(in crate::http_strict) const ALL: &[Rule] = &[$(Rule::$rule),*];

            /// The section, how strong it is, and what it says.
            pub(in crate::http_strict) fn text(self) -> (&'static str, Level, &'static str) {
                match self {
                    $(Rule::$rule => ($section, Level::$level, $text),)*
                }
            }
        }
    };
}

rules! {
    FieldNames: "9110, 5.1", Must, "a field's name is a token";
    FieldValues: "9110, 5.5", Must, "CR, LF and NUL in a value: invalid; other control characters too";
    Hosts: "9110, 7.2", Must, "Host is a host and perhaps a port; with HTTP/1.1 it is there";
    HostOnce: "9112, 3.2", Must, "more than one Host, or an invalid one: 400";
    Absolute: "9112, 3.2.2", Must, "the absolute form is accepted; http and https have a host";
    Fragments: "9110, 4.2.5", Must, "a fragment is no part of a target; it is not passed on";
    Upgrade: "9110, 7.8", May, "an upgrade that is not wanted is ignored";
    LengthValues: "9110, 8.6", Must, "Content-Length is digits alone, and does not overflow";
    Heads: "9110, 9.3.2", Must, "no body in the answer to HEAD";
    BodiesOfGet: "9110, 9.3.1", Must, "a body of GET is framed as any other";
    Connect: "9110, 9.3.6", May, "CONNECT is not for an origin: 501";
    Trace: "9110, 9.3.8", May, "TRACE shows what it should not: 501";
    UnknownMethods: "9110, 9.1", Should, "a method that the server does not know is the app's to judge";
    Expectations: "9110, 10.1.1", May, "an expectation other than 100-continue: 417; HTTP/1.0 has none";
    TooLong: "9112, 3", Should, "lines of 8000 bytes should do; limits are the operator's: 414, 431";
    LineEnds: "9112, 2.2", May, "a line that ends in LF alone may be accepted; it is not";
    BareCr: "9112, 2.2", Must, "a bare CR is invalid";
    EmptyLines: "9112, 2.2", Should, "an empty line before the request line is ignored; up to four are";
    BlankFirst: "9112, 2.2", Must, "white space between the request line and the first field: refused";
    Versions: "9112, 2.3", Must, "the version has its form; others than 1.0 and 1.1: 505";
    RequestLine: "9112, 3", Should, "three words and two single spaces";
    Methods: "9112, 3.1", Must, "the method is a token";
    Targets: "9112, 3.2", Should, "an invalid target: 400, and no attempt to correct it";
    Asterisk: "9112, 3.2.4", Must, "the asterisk is for OPTIONS alone";
    Colons: "9112, 5.1", Must, "white space before the colon: 400; a line without one is no field";
    Folding: "9112, 5.2", Must, "a folded line: 400";
    UnknownCodings: "9112, 6.1", Should, "a coding that is not understood: 501";
    OldCodings: "9112, 6.1", Must, "Transfer-Encoding with HTTP/1.0: faulty framing";
    LengthAndCoding: "9112, 6.3", May, "both Content-Length and Transfer-Encoding: refused";
    LastCoding: "9112, 6.3", Must, "chunked is not the last coding, or is there twice: 400";
    Lengths: "9112, 6.3", Must, "two lengths: 400; equal ones might be taken for one, and are not";
    Chunks: "9112, 7.1", Must, "chunked bodies are read, and end where they say";
    ChunkSizes: "9112, 7.1", Must, "a chunk's size is hexadecimal, and does not overflow";
    Extensions: "9112, 7.1.1", Must, "extensions that are not known are ignored; of invalid ones or many: 400";
    Trailers: "9112, 7.1.2", Must, "trailers are fields, and are not mixed with the others";
    OldConnections: "9112, 9.3", Must, "HTTP/1.0 ends, unless it asks for keep-alive";
    Pipelining: "9112, 9.3.2", Must, "requests ahead are answered in their order";
    Close: "9112, 9.6", Must, "behind close nothing more is answered";
    Prefaces: "9113, 3.4", May, "the preface of HTTP/2 where HTTP/1.1 is spoken: 505";
}
