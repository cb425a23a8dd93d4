//! A TCP proxy that can be told to fail in the ways that a network or a host does. Not here: what is behind it.

use super::{DEADLINE, eventually};
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// What becomes of bytes and of new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Pass,
    /// Nothing arrives, and nothing is lost: it arrives later.
    Pause,
    /// New connections are closed at once.
    Refuse,
    /// A host that has gone without a word: connections are taken, and bytes go nowhere.
    Swallow,
    /// The proxy's end.
    End,
}

/// Passes connections on to an address, until told otherwise.
pub struct Proxy {
    addr: SocketAddr,
    link: Arc<Link>,
}

struct Link {
    to: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
    attempts: AtomicUsize,
}

struct State {
    mode: Mode,
    /// Both ends of what is open, by number.
    open: HashMap<usize, [TcpStream; 2]>,
}

impl Proxy {
    pub fn to(to: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let state = Mutex::new(State { mode: Mode::Pass, open: HashMap::new() });
        let link = Arc::new(Link { to, state, changed: Condvar::new(), attempts: AtomicUsize::new(0) });
        let accepting = Arc::clone(&link);
        thread::spawn(move || accepting.accept_from(&listener));
        Proxy { addr, link }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many connections were asked for so far, served or not.
    pub fn attempts(&self) -> usize {
        self.link.attempts.load(SeqCst)
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        self.link.lock().open.len()
    }

    /// All is well again. What was swallowed is missing, so such connections are closed.
    pub fn pass(&self) {
        if self.link.lock().mode == Mode::Swallow {
            self.refuse();
        }
        self.link.become_(Mode::Pass);
    }

    /// Bytes stop, in connections that there are and in new ones.
    pub fn pause(&self) {
        self.link.become_(Mode::Pause);
    }

    /// Closes all connections.
    pub fn cut(&self) {
        self.link.lock().open.values().flatten().for_each(end);
        eventually(DEADLINE, "what was cut has closed", || self.open() == 0);
    }

    /// Closes all connections, and new ones at once.
    pub fn refuse(&self) {
        self.link.become_(Mode::Refuse);
        self.cut();
    }

    /// What is sent goes nowhere, and nobody is told.
    pub fn swallow(&self) {
        self.link.become_(Mode::Swallow);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.link.become_(Mode::End);
        self.link.lock().open.values().flatten().for_each(end);
        // The one who accepts looks up.
        drop(TcpStream::connect(self.addr));
    }
}

impl Link {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn become_(&self, mode: Mode) {
        self.lock().mode = mode;
        self.changed.notify_all();
    }

    fn accept_from(self: &Arc<Link>, listener: &TcpListener) {
        for client in listener.incoming().map_while(Result::ok) {
            let number = self.attempts.fetch_add(1, SeqCst);
            match self.lock().mode {
                Mode::End => return,
                Mode::Refuse => continue,
                Mode::Pass | Mode::Pause | Mode::Swallow => {}
            }
            // Where nobody listens behind the proxy, the client's connection ends as well.
            let Ok(server) = TcpStream::connect(self.to) else { continue };
            [&client, &server].into_iter().for_each(|stream| stream.set_nodelay(true).unwrap());
            let clone = |stream: &TcpStream| stream.try_clone().unwrap();
            self.lock().open.insert(number, [clone(&client), clone(&server)]);
            for (from, to) in [(clone(&client), clone(&server)), (server, client)] {
                let link = Arc::clone(self);
                thread::spawn(move || {
                    link.pump(from, to);
                    let ends = link.lock().open.remove(&number);
                    ends.iter().flatten().for_each(end);
                });
            }
        }
    }

    /// Until either end closes; then the other one is closed, too.
    fn pump(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = [0; 16 * 1024];
        loop {
            let count = match from.read(&mut buffer) {
                Ok(0) => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => break,
                Ok(count) => count,
            };
            match self.mode_after_pause() {
                Mode::Swallow => {}
                Mode::End => break,
                Mode::Pass | Mode::Pause | Mode::Refuse => {
                    if to.write_all(&buffer[..count]).is_err() {
                        break;
                    }
                }
            }
        }
        // The end of a connection is told as bytes are.
        let _told =
            self.changed.wait_while(self.lock(), |state| [Mode::Pause, Mode::Swallow].contains(&state.mode));
    }

    fn mode_after_pause(&self) -> Mode {
        let waited = self.changed.wait_while(self.lock(), |state| state.mode == Mode::Pause);
        waited.unwrap_or_else(PoisonError::into_inner).mode
    }
}

fn end(stream: &TcpStream) {
    let _ = stream.shutdown(Shutdown::Both);
}
