//! Which program is run, and within which limits. Not here: how these are kept.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(10);
const START_TIMEOUT: Duration = Duration::from_secs(30);
const QUEUE: usize = 64;
const MAX_LINE: usize = 1 << 20;

/// A program for [`Worker::program`](crate::Worker::program): its words, and the limits of its calls.
///
/// ```
/// use ferricorn::ProgramOptions;
/// use std::time::Duration;
///
/// let score = ProgramOptions::new(["python3", "score.py"]).children(2).timeout(Duration::from_secs(2));
/// ```
#[derive(Clone, Debug)]
pub struct ProgramOptions {
    pub(super) words: Vec<OsString>,
    pub(super) folder: Option<PathBuf>,
    pub(super) children: usize,
    pub(super) queue: usize,
    pub(super) timeout: Duration,
    pub(super) start_timeout: Duration,
    pub(super) max_line: usize,
}

impl ProgramOptions {
    /// The program and its arguments, word for word: there is no shell. A program without a slash is looked for in `PATH`.
    ///
    /// # Panics
    /// When there is no word.
    #[track_caller]
    pub fn new<W: Into<OsString>>(words: impl IntoIterator<Item = W>) -> ProgramOptions {
        let words: Vec<OsString> = words.into_iter().map(Into::into).collect();
        assert!(!words.is_empty(), "a program is named by its first word");
        ProgramOptions {
            words,
            folder: None,
            children: 1,
            queue: QUEUE,
            timeout: TIMEOUT,
            start_timeout: START_TIMEOUT,
            max_line: MAX_LINE,
        }
    }

    /// The folder in which it runs. Default: that of the server.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> ProgramOptions {
        self.folder = Some(folder.into());
        self
    }

    /// How many processes of it each worker runs, of which each answers one call at a time. Default 1, and no less.
    #[must_use]
    pub fn children(mut self, children: usize) -> ProgramOptions {
        self.children = children.max(1);
        self
    }

    /// How many calls may wait in a worker while its children are busy. Default 64. One beyond that is refused at once.
    #[must_use]
    pub fn queue(mut self, queue: usize) -> ProgramOptions {
        self.queue = queue;
        self
    }

    /// How long an answer may take, and as long again the wait for a child. Default 10 s, and no less than a millisecond. A
    /// child that is late is killed, and another one started.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> ProgramOptions {
        self.timeout = timeout.max(Duration::from_millis(1));
        self
    }

    /// How long after its start a child may be busy with itself, loading a model, say, before its first answer. Default 30 s.
    /// Callers do not wait for longer than `timeout`, but it is not killed for that before this time is over.
    #[must_use]
    pub fn start_timeout(mut self, start_timeout: Duration) -> ProgramOptions {
        self.start_timeout = start_timeout;
        self
    }

    /// How many bytes a document may take, the question as well as the answer. Default 1 MiB.
    #[must_use]
    pub fn max_line(mut self, bytes: usize) -> ProgramOptions {
        self.max_line = bytes;
        self
    }
}
