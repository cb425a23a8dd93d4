//! A chunked body (RFC 9112, 7.1), byte by byte but for its data. Not here: what is in it.

use super::{Fault, Limits};

/// More digits than this are no size, whatever they are.
const SIZE_DIGITS: u8 = 16;
/// The most bytes of extensions in a body: nobody reads them (RFC 9112, 7.1.1). hyper's own limit is twice that.
const EXTENSIONS: usize = 8 * 1024;
/// The most bytes of trailers. hyper's own limit is twice that.
const TRAILERS: usize = 8 * 1024;

/// Where in the body it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Size,
    /// White space behind the size: an extension has to follow.
    BeforeExtension,
    BeforeName,
    Name,
    AfterName,
    BeforeValue,
    Value,
    Quoted,
    Escaped,
    AfterValue,
    AfterQuoted,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerBegin,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
}

#[derive(Debug)]
pub(super) struct Chunks {
    at: At,
    /// Of the chunk at hand: its size, then what is left of it.
    size: u64,
    digits: u8,
    extension_bytes: usize,
    trailer_bytes: usize,
    trailers: usize,
    max_trailers: usize,
}

impl Chunks {
    pub(super) fn new(limits: &Limits) -> Chunks {
        Chunks {
            at: At::Size,
            size: 0,
            digits: 0,
            extension_bytes: 0,
            trailer_bytes: 0,
            trailers: 0,
            max_trailers: limits.fields,
        }
    }

    /// How many of the bytes are of the body and good, and whether it is over.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> (usize, Result<bool, Fault>) {
        let mut index = 0;
        while let Some(byte) = bytes.get(index) {
            if self.at == At::Data {
                let left = bytes.len() - index;
                let here = usize::try_from(self.size).map_or(left, |size| size.min(left));
                self.size -= here as u64;
                index += here;
                if self.size == 0 {
                    self.at = At::DataCr;
                }
                continue;
            }
            let is_end = self.at == At::EndLf && *byte == b'\n';
            match self.step(*byte) {
                Ok(at) => self.at = at,
                Err(fault) => return (index, Err(fault)),
            }
            index += 1;
            if is_end {
                return (index, Ok(true));
            }
        }
        (index, Ok(false))
    }

    fn step(&mut self, byte: u8) -> Result<At, Fault> {
        match self.at {
            At::Size => self.step_size(byte),
            At::BeforeExtension
            | At::BeforeName
            | At::Name
            | At::AfterName
            | At::BeforeValue
            | At::Value
            | At::Quoted
            | At::Escaped
            | At::AfterValue
            | At::AfterQuoted => self.step_extension(byte),
            At::SizeLf if byte == b'\n' => Ok(if self.size == 0 { At::TrailerBegin } else { At::Data }),
            At::SizeLf => Err(Fault::Chunk),
            At::DataCr if byte == b'\r' => Ok(At::DataLf),
            At::DataLf if byte == b'\n' => {
                self.digits = 0;
                Ok(At::Size)
            }
            At::Data | At::DataCr | At::DataLf => Err(Fault::ChunkEnd),
            At::TrailerBegin | At::TrailerName | At::TrailerValue | At::TrailerLf | At::EndLf => {
                self.step_trailer(byte)
            }
        }
    }

    fn step_size(&mut self, byte: u8) -> Result<At, Fault> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            b';' if self.digits > 0 => return Ok(At::BeforeName),
            b' ' | b'\t' if self.digits > 0 => return Ok(At::BeforeExtension),
            b'\r' if self.digits > 0 => return Ok(At::SizeLf),
            _ => return Err(Fault::Chunk),
        };
        if self.digits == SIZE_DIGITS {
            return Err(Fault::Chunk);
        }
        self.digits += 1;
        self.size = self.size << 4 | u64::from(digit);
        Ok(At::Size)
    }

    /// `*( BWS ";" BWS name [ BWS "=" BWS value ] )`, the value a token or a quoted string.
    fn step_extension(&mut self, byte: u8) -> Result<At, Fault> {
        self.extension_bytes += 1;
        if self.extension_bytes > EXTENSIONS {
            return Err(Fault::ExtensionsTooLarge);
        }
        let is_blank = matches!(byte, b' ' | b'\t');
        match (self.at, byte) {
            (At::Quoted, b'"') => Ok(At::AfterQuoted),
            (At::Quoted, b'\\') => Ok(At::Escaped),
            (At::Quoted | At::Escaped, _) if is_text(byte) => Ok(At::Quoted),
            (At::BeforeExtension | At::BeforeName | At::BeforeValue | At::AfterName | At::AfterValue, _)
                if is_blank =>
            {
                Ok(self.at)
            }
            (At::Name, _) if is_blank => Ok(At::AfterName),
            (At::Value | At::AfterQuoted, _) if is_blank => Ok(At::AfterValue),
            (At::BeforeName | At::Name, _) if is_token(byte) => Ok(At::Name),
            (At::BeforeValue | At::Value, _) if is_token(byte) => Ok(At::Value),
            (At::BeforeValue, b'"') => Ok(At::Quoted),
            (At::Name | At::AfterName, b'=') => Ok(At::BeforeValue),
            (
                At::BeforeExtension | At::Name | At::AfterName | At::Value | At::AfterQuoted | At::AfterValue,
                b';',
            ) => Ok(At::BeforeName),
            (At::Name | At::Value | At::AfterQuoted, b'\r') => Ok(At::SizeLf),
            (_, _) => Err(Fault::Extension),
        }
    }

    /// Fields, and an empty line. What hyper takes for their end is the next empty line, wherever that is: hence each byte.
    fn step_trailer(&mut self, byte: u8) -> Result<At, Fault> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILERS {
            return Err(Fault::TrailersTooLarge);
        }
        match (self.at, byte) {
            (At::TrailerBegin, b'\r') => Ok(At::EndLf),
            (At::TrailerBegin, _) if is_token(byte) => {
                self.trailers += 1;
                if self.trailers > self.max_trailers {
                    return Err(Fault::TrailersTooLarge);
                }
                Ok(At::TrailerName)
            }
            (At::TrailerName, b':') => Ok(At::TrailerValue),
            (At::TrailerName, _) if is_token(byte) => Ok(At::TrailerName),
            (At::TrailerValue, b'\r') => Ok(At::TrailerLf),
            (At::TrailerValue, _) if is_text(byte) => Ok(At::TrailerValue),
            // The end of a field, or of them all.
            (At::TrailerLf | At::EndLf, b'\n') => Ok(At::TrailerBegin),
            (_, _) => Err(Fault::Trailer),
        }
    }
}

/// A character of a token (RFC 9110, 5.6.2).
fn is_token(byte: u8) -> bool {
    matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
        || byte.is_ascii_alphanumeric()
}

/// What may stand in a field's value (RFC 9110, 5.5), and in a quoted string but for two.
fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}
