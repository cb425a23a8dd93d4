//! How a connection to PostgreSQL is made and closed: the URL, what it leaves open, and the wire below the client.
//! Not here: what goes over it.
//!
//! The client is told to speak TLS from the first byte on, and gets our wire in place of a TLS stream. So the wire sees
//! what the client itself does not bound or tell: how long the greeting takes, and whether the server has closed the
//! connection. A PostgreSQL server keeps the socket open until its process for the connection has ended
//! (`socket_close` in its source), so the end of the stream says that the process is gone. TLS is the wire's own affair.

use super::tls::{self, Asked, Transport};
use postgres::config::{Host, SslMode, SslNegotiation};
use postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use postgres::{CancelToken, Client, NoTls, Socket};
use r2d2::ManageConnection;
use r2d2_postgres::PostgresConnectionManager;
use std::convert::Infallible;
use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tokio_rustls::TlsConnector;

// What a URL does not say about a connection. libpq's names and meanings:
// https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(15);
const KEEPALIVES_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVES_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVES_RETRIES: u32 = 3;

/// How long a server may take to close a connection that has said goodbye.
const FAREWELL: Duration = Duration::from_secs(2);

/// Reads the URL; the message does not hold the password.
fn parse(url: &str) -> Result<(postgres::Config, Asked), String> {
    let (url, asked) = tls::split(url)?;
    let config: postgres::Config = url.parse().map_err(|error: postgres::Error| {
        let reason = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        // What is taken for an option may be the rest of a password with a `?` in it.
        let reason = if reason.starts_with("unknown option") { "unknown option".into() } else { reason };
        format!("the postgres url is not valid: {reason}")
    })?;
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err("the postgres url names no host".into());
    }
    let is_socket = |host: &Host| matches!(host, Host::Unix(_));
    if matches!(asked, Asked::Verified(_)) && config.get_hosts().iter().any(is_socket) {
        return Err("the postgres url has sslmode=verify-full, and there is no TLS over a Unix socket".into());
    }
    Ok((config, asked))
}

/// Whether connections can be tried with this URL; what is weak about it, if so.
pub(super) fn check(url: &str) -> Result<Option<String>, String> {
    let (config, asked) = parse(url)?;
    if let Asked::Verified(roots) = asked {
        return tls::connector(&roots).map(|_| None);
    }
    let names = config.get_hosts().iter().filter_map(|host| match host {
        Host::Tcp(name) => Some(name.clone()),
        Host::Unix(_) => None,
    });
    let addrs = config.get_hostaddrs().iter().map(ToString::to_string);
    let away = names.chain(addrs).find(|host| tls::leaves_the_machine(host));
    Ok(away.map(|host| {
        format!(
            "the connection to PostgreSQL at {host} is not encrypted, and nothing shows who is there; \
             give database.url sslmode=verify-full and sslrootcert=FILE"
        )
    }))
}

/// Adds what the URL leaves open.
fn configure(url: &str, application: &str) -> Result<(postgres::Config, Asked), String> {
    let (mut config, asked) = parse(url)?;
    if config.get_application_name().is_none() {
        config.application_name(application);
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(TCP_USER_TIMEOUT);
    }
    if config.get_keepalives_interval().is_none() {
        config.keepalives_idle(KEEPALIVES_IDLE).keepalives_interval(KEEPALIVES_INTERVAL);
        config.keepalives_retries(KEEPALIVES_RETRIES);
    }
    if config.get_hosts().is_empty() {
        // The wire is only asked for where there is a name.
        for addr in config.get_hostaddrs().to_vec() {
            config.host(&addr.to_string());
        }
    }
    Ok((config, asked))
}

/// Makes connections to one database.
#[derive(Clone)]
pub(super) struct Dialer {
    config: postgres::Config,
    /// Whether the wire is below its connections. The client gives it no Unix socket.
    wired: bool,
    tls: Option<TlsConnector>,
}

impl Dialer {
    /// # Errors
    /// When the URL is not valid, or the authorities' certificates cannot be read.
    pub(super) fn new(url: &str, application: &str) -> Result<Dialer, String> {
        let (mut config, asked) = configure(url, application)?;
        let tls = match asked {
            Asked::Verified(roots) => Some(tls::connector(&roots)?),
            Asked::Plain | Asked::No => None,
        };
        let wired = config.get_hosts().iter().all(|host| match host {
            Host::Tcp(_) => true,
            Host::Unix(_) => false,
        });
        if wired {
            config.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
        } else {
            config.ssl_mode(SslMode::Disable);
        }
        Ok(Dialer { config, wired, tls })
    }

    /// Has the server end a statement that runs this long, and a connection that leaves a transaction alone for so long.
    pub(super) fn limit_statements(&mut self, timeout: Duration) {
        // First, so that an option of the URL wins.
        let millis = timeout.as_millis();
        let ours = format!("-c statement_timeout={millis} -c idle_in_transaction_session_timeout={millis}");
        let options = self.config.get_options().map_or(ours.clone(), |theirs| format!("{ours} {theirs}"));
        self.config.options(&options);
    }

    /// Connects, and blocks meanwhile.
    pub(super) fn dial(&self, contact: &Arc<Contact>) -> Result<Client, postgres::Error> {
        let config = self.config.clone();
        let made = if self.wired {
            PostgresConnectionManager::new(config, self.wire(contact)).connect()
        } else {
            PostgresConnectionManager::new(config, NoTls).connect()
        };
        match &made {
            Ok(_) => contact.up.store(true, Relaxed),
            Err(error) if error.as_db_error().is_some() => contact.refused.store(true, Relaxed),
            Err(_) => {}
        }
        made
    }

    /// Has the server end what the token's connection is at work on, and blocks until it has heard of it.
    pub(super) fn cancel(&self, token: &CancelToken) -> Result<(), postgres::Error> {
        if self.wired {
            let wire = self.wire(&Arc::new(Contact::default()));
            token.cancel_query(Wire { ends_first: false, ..wire })
        } else {
            token.cancel_query(NoTls)
        }
    }

    fn wire(&self, contact: &Arc<Contact>) -> Wire {
        let greeting = self.config.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT);
        Wire { contact: Arc::clone(contact), greeting, tls: self.tls.clone(), ends_first: true }
    }
}

/// The server's words, or the reason why there are none.
pub(super) fn describe(error: &postgres::Error) -> String {
    match (error.as_db_error(), error.source()) {
        // PgBouncer's words.
        (Some(refusal), _) if refusal.message().starts_with("unsupported startup parameter") => {
            format!("{refusal}; behind a pooler set database.transaction_pooler, or statement_timeout to 0")
        }
        (Some(refusal), _) => refusal.to_string(),
        (None, Some(source)) => format!("{error}: {source}"),
        (None, None) => error.to_string(),
    }
}

/// What is known of a connection from below.
#[derive(Debug, Default)]
pub(super) struct Contact {
    reached: AtomicBool,
    refused: AtomicBool,
    up: AtomicBool,
    parted: AtomicBool,
}

impl Contact {
    /// The server took the connection.
    pub(super) fn was_reached(&self) -> bool {
        self.reached.load(Relaxed)
    }

    /// It said why it will not serve it.
    pub(super) fn was_refused(&self) -> bool {
        self.refused.load(Relaxed)
    }

    /// It greeted, and a session began.
    pub(super) fn is_up(&self) -> bool {
        self.up.load(Relaxed)
    }

    /// The server has closed it: nothing is left of it there.
    pub(super) fn has_parted(&self) -> bool {
        self.parted.load(Relaxed)
    }
}

/// Puts the wire below a client.
#[derive(Clone)]
struct Wire {
    contact: Arc<Contact>,
    /// How long the server may take from the connection to the end of its greeting.
    greeting: Duration,
    tls: Option<TlsConnector>,
    /// Who asks to cancel leaves the end to the server, as libpq does: PgBouncer before 1.20 may otherwise die of it
    /// (<https://github.com/pgbouncer/pgbouncer/issues/801>).
    ends_first: bool,
}

impl MakeTlsConnect<Socket> for Wire {
    type Stream = Stream;
    type TlsConnect = Connect;
    type Error = Infallible;

    fn make_tls_connect(&mut self, host: &str) -> Result<Connect, Infallible> {
        let Wire { contact, greeting, tls, ends_first } = self;
        let tls = tls.as_ref().map(|tls| (tls.clone(), host.to_owned()));
        Ok(Connect { contact: Arc::clone(contact), greeting: *greeting, tls, ends_first: *ends_first })
    }
}

struct Connect {
    contact: Arc<Contact>,
    greeting: Duration,
    /// With the name that the server must prove to have.
    tls: Option<(TlsConnector, String)>,
    ends_first: bool,
}

impl TlsConnect<Socket> for Connect {
    type Stream = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(async move {
            // Of several hosts, the last one counts.
            self.contact.parted.store(false, Relaxed);
            self.contact.reached.store(true, Relaxed);
            let patience = Instant::now() + self.greeting;
            let transport = match &self.tls {
                Some((tls, host)) => {
                    timeout_at(patience, tls::secure(socket, tls, host)).await.map_err(silent)??
                }
                None => Transport::Plain(socket),
            };
            let patience = Some(Box::pin(sleep_until(patience)));
            let ends_first = self.ends_first;
            Ok(Stream { transport, contact: self.contact, patience, farewell: None, ends_first })
        })
    }
}

fn silent<T>(_: T) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the server accepted and said nothing")
}

/// The bytes of one connection.
struct Stream {
    transport: Transport,
    contact: Arc<Contact>,
    /// Until the greeting is over.
    patience: Option<Pin<Box<Sleep>>>,
    /// Once goodbye is said.
    farewell: Option<Pin<Box<Sleep>>>,
    ends_first: bool,
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let Poll::Ready(read) = Pin::new(&mut self.transport).poll_read(cx, buf) else {
            return self.wait(cx);
        };
        if read.is_err() || (buf.filled().len() == before && buf.remaining() > 0) {
            self.contact.parted.store(true, Relaxed);
        }
        Poll::Ready(read)
    }
}

impl Stream {
    /// Nothing came yet.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(patience) = &mut self.patience else { return Poll::Pending };
        if self.contact.is_up() {
            self.patience = None;
            return Poll::Pending;
        }
        ready!(patience.as_mut().poll(cx));
        Poll::Ready(Err(silent(())))
    }

    /// Reads to the end of what the server says.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let mut space = [0; 512];
            let mut buf = ReadBuf::new(&mut space);
            let read = ready!(Pin::new(&mut self.transport).poll_read(cx, &mut buf));
            if read.is_err() || buf.filled().is_empty() {
                self.contact.parted.store(true, Relaxed);
                return Poll::Ready(());
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.transport).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.farewell.is_none() {
            if self.ends_first {
                ready!(Pin::new(&mut self.transport).poll_shutdown(cx))?;
            }
            self.farewell = Some(Box::pin(sleep_until(Instant::now() + FAREWELL)));
        }
        if self.poll_end(cx).is_pending() {
            let farewell = self.farewell.as_mut().expect("just made");
            ready!(farewell.as_mut().poll(cx));
        }
        Poll::Ready(Ok(()))
    }
}

impl TlsStream for Stream {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}
