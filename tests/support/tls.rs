//! An authority that certifies servers and clients, and clients that speak TLS. Not here: HTTP over it (http.rs).

use super::{Failure, Program, Target};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, RootCertStore, StreamOwned,
    SupportedProtocolVersion,
};

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

/// A certificate and its key, in PEM.
pub struct Certified {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "the tests' authority");
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// For these hosts or addresses.
    pub fn certify(&self, names: &[&str]) -> Certified {
        self.certify_from(names, 2024)
    }

    /// One that is valid from the beginning of a year, and for ten.
    pub fn certify_from(&self, names: &[&str], year: i32) -> Certified {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = rcgen::date_time_ymd(year, 1, 1);
        params.not_after = rcgen::date_time_ymd(year + 10, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Certified { certificate, key: key.serialize_pem() }
    }

    /// A client that trusts this authority alone.
    pub fn client(&self) -> Client {
        Client {
            roots: self.pem.clone(),
            own: None,
            versions: vec![&TLS13, &TLS12],
            alpn: &[],
            is_forgetful: false,
        }
    }
}

impl Certified {
    /// As `NAME.crt` and `NAME.key`, the key for its owner alone.
    pub fn write(&self, folder: &Path, name: &str) {
        fs::write(folder.join(format!("{name}.crt")), &self.certificate).unwrap();
        let key = folder.join(format!("{name}.key"));
        fs::write(&key, &self.key).unwrap();
        fs::set_permissions(key, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

impl Program {
    /// Speaks TLS for `localhost` at what it is bound to, with the files `s.crt` and `s.key`.
    pub fn tls(self, authority: &Authority) -> Program {
        authority.certify(&["localhost", "127.0.0.1"]).write(self.dir(), "s");
        self.args("--certfile s.crt --keyfile s.key")
    }
}

/// A client to be.
pub struct Client {
    roots: String,
    own: Option<Certified>,
    versions: Vec<&'static SupportedProtocolVersion>,
    alpn: &'static [&'static str],
    is_forgetful: bool,
}

impl Client {
    pub fn showing(mut self, own: Certified) -> Client {
        self.own = Some(own);
        self
    }

    pub fn tls12(mut self) -> Client {
        self.versions = vec![&TLS12];
        self
    }

    pub fn tls13(mut self) -> Client {
        self.versions = vec![&TLS13];
        self
    }

    pub fn offering(mut self, protocols: &'static [&'static str]) -> Client {
        self.alpn = protocols;
        self
    }

    /// Each handshake is a whole one.
    pub fn forgetful(mut self) -> Client {
        self.is_forgetful = true;
        self
    }

    pub fn config(self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.roots.as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&self.versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match self.own {
            Some(Certified { certificate, key }) => {
                let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
                builder
                    .with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
                    .unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = self.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        if self.is_forgetful {
            config.resumption = Resumption::disabled();
        }
        Arc::new(config)
    }

    /// Where to connect.
    pub fn to(self, addr: SocketAddr) -> Target {
        Target::Tls { addr, name: "localhost".to_owned(), config: self.config() }
    }
}

/// TLS over a connection, its handshake done.
pub struct Secured(StreamOwned<ClientConnection, TcpStream>);

impl Secured {
    pub fn shake_hands(
        mut stream: TcpStream,
        name: &str,
        config: &Arc<ClientConfig>,
    ) -> Result<Secured, Failure> {
        let name = ServerName::try_from(name.to_owned()).expect("a name or an address");
        let mut connection = ClientConnection::new(config.clone(), name).expect("the client's side is sound");
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        Ok(Secured(StreamOwned::new(connection, stream)))
    }

    pub fn socket(&self) -> &TcpStream {
        &self.0.sock
    }

    pub fn is_resumed(&self) -> bool {
        self.0.conn.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    pub fn version(&self) -> Option<ProtocolVersion> {
        self.0.conn.protocol_version()
    }

    pub fn alpn(&self) -> Option<String> {
        self.0.conn.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned())
    }

    /// The server's certificate, in DER.
    pub fn certificate(&self) -> Vec<u8> {
        self.0
            .conn
            .peer_certificates()
            .and_then(|chain| chain.first())
            .map(|first| first.to_vec())
            .unwrap_or_default()
    }

    /// Takes in what has come, tickets among it, and tells whether the server has closed its side.
    pub fn has_ended(&mut self) -> bool {
        let StreamOwned { conn, sock, .. } = &mut self.0;
        sock.set_nonblocking(true).expect("a socket can be told");
        let ended = loop {
            match conn.read_tls(sock) {
                Ok(0) => break true,
                Ok(_) => match conn.process_new_packets() {
                    Ok(state) if state.peer_has_closed() => break true,
                    Ok(_) => {}
                    Err(_) => break true,
                },
                Err(error) => break error.kind() != io::ErrorKind::WouldBlock,
            }
        };
        sock.set_nonblocking(false).expect("a socket can be told");
        ended
    }
}

impl Read for Secured {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Secured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
