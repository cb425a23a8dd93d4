//! What is wrong with the settings, in full. Not here: finding it.

use std::fmt;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem(String);

impl Problem {
    pub(super) fn new(message: String) -> Problem {
        Problem(message)
    }
}

/// Why there are no settings: each problem with its place, what was given and what is allowed, one a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    problems: Vec<Problem>,
}

impl Error {
    pub(super) fn new(problems: Vec<Problem>) -> Error {
        Error { problems }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, problem) in self.problems.iter().enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            f.write_str(&problem.0)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}
