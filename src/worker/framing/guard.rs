//! What lies between the stream and hyper: the scanner, and the bytes that it does not let pass yet. A head goes on when it
//! is complete and good; one that is not is replaced by a head that is refused in its turn. Not here: reading.

use super::{Fault, Limits, Scanned, Scanner};

pub(in crate::worker) struct Guard {
    scanner: Scanner,
    /// Read, and not given on.
    held: Vec<u8>,
    /// How many of them may go on.
    passed: usize,
    fault: Option<Fault>,
    /// The bad head has its substitute.
    is_over: bool,
}

impl Guard {
    pub(in crate::worker) fn new(limits: Limits) -> Guard {
        Guard { scanner: Scanner::new(limits), held: Vec::new(), passed: 0, fault: None, is_over: false }
    }

    /// What is read has to wait behind what is here, or is not wanted any more.
    pub(in crate::worker) fn holds(&self) -> bool {
        !self.held.is_empty() || self.fault.is_some()
    }

    /// These bytes were read. So many of them may go on at once; the guard keeps the others.
    pub(in crate::worker) fn take(&mut self, bytes: &[u8]) -> usize {
        if self.holds() {
            self.held.extend_from_slice(bytes);
            let Scanned { passed, fault } = self.scanner.scan(&self.held);
            (self.passed, self.fault) = (passed, fault);
            return 0;
        }
        let Scanned { passed, fault } = self.scanner.scan(bytes);
        if passed < bytes.len() {
            self.fault = fault;
            self.held.extend_from_slice(&bytes[passed..]);
        }
        passed
    }

    /// The next bytes that may go on.
    pub(in crate::worker) fn ready(&self) -> &[u8] {
        &self.held[..self.passed]
    }

    /// So many of them have gone on.
    pub(in crate::worker) fn gave(&mut self, count: usize) {
        self.passed -= count;
        self.held.drain(..count);
        if self.held.is_empty() {
            // Idle connections keep no memory for heads.
            self.held = Vec::new();
        }
    }

    /// The last byte that was taken is one of a body, and not its last.
    pub(in crate::worker) fn is_in_body(&self) -> bool {
        self.scanner.is_in_body()
    }

    /// What is wrong with the bytes that come next.
    pub(in crate::worker) fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// The bad head has its substitute: nothing follows it.
    pub(in crate::worker) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Puts a substitute in the place of a bad head. What came behind it is forgotten.
    pub(in crate::worker) fn replace_head(&mut self) {
        self.is_over = true;
        self.held = self.scanner.substitute(&self.held);
        self.passed = self.held.len();
    }

    /// HTTP is over on this connection: all that was read is somebody else's.
    pub(in crate::worker) fn step_aside(&mut self) {
        self.passed = self.held.len();
        self.fault = None;
    }
}
