//! Session tickets (RFC 8446, 4.6.1; RFC 5077): what lets a client come back without a whole handshake, at whichever worker.
//! Not here: when one is given.
//!
//! All workers of a server know one secret, made by the master before the first fork, and take the keys of an epoch from it,
//! so that they agree without a word. A ticket is good in its epoch and the next one.

use crate::config::CertReqs;
use crate::scoreboard::now_millis;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac::{self, HMAC_SHA256};
use ring::rand::{SecureRandom, SystemRandom};
use std::fmt;
use tokio_rustls::rustls::server::ProducesTickets;

/// How long tickets are made with one key.
const EPOCH_SECONDS: u32 = 6 * 3600;
/// At the head of a ticket: which key it was made with.
const NAME_LEN: usize = 16;
/// A ticket has a client's certificates in it; a longer one is none of ours.
const MAX_TICKET: usize = 64 * 1024;

/// What the keys of all tickets come from, for the life of a server.
#[derive(Clone)]
pub(crate) struct TicketSecret([u8; 32]);

impl TicketSecret {
    /// # Errors
    /// When the system has no randomness to give.
    pub(crate) fn new() -> Result<TicketSecret, String> {
        let mut bytes = [0; 32];
        SystemRandom::new().fill(&mut bytes).map_err(|_| "the system gives no random numbers".to_owned())?;
        Ok(TicketSecret(bytes))
    }
}

pub(super) struct Tickets {
    /// Of this server, and of what it asks of clients: a session that stands for a certificate is not resumed where another
    /// authority would have to vouch for it.
    root: hmac::Key,
}

/// The keys of one epoch.
struct Keys {
    name: [u8; NAME_LEN],
    key: LessSafeKey,
}

impl Tickets {
    pub(super) fn new(
        TicketSecret(secret): &TicketSecret,
        asked: CertReqs,
        authorities: Option<&[u8]>,
    ) -> Tickets {
        let asked: &[u8] = match asked {
            CertReqs::None => b"none",
            CertReqs::Optional => b"optional",
            CertReqs::Required => b"required",
        };
        let mut context = hmac::Context::with_key(&hmac::Key::new(HMAC_SHA256, secret));
        context.update(asked);
        context.update(b"\n");
        context.update(authorities.unwrap_or_default());
        Tickets { root: hmac::Key::new(HMAC_SHA256, context.sign().as_ref()) }
    }

    /// Taken anew for each ticket: two short hashes beside a handshake's arithmetic.
    fn keys(&self, epoch: u64) -> Option<Keys> {
        let derive = |what: &str| hmac::sign(&self.root, format!("{what} {epoch}").as_bytes());
        let key = UnboundKey::new(&AES_256_GCM, derive("key").as_ref()).ok()?;
        let name = *derive("name").as_ref().first_chunk()?;
        Some(Keys { name, key: LessSafeKey::new(key) })
    }

    fn seal(&self, plain: &[u8], epoch: u64) -> Option<Vec<u8>> {
        let Keys { name, key } = self.keys(epoch)?;
        let mut nonce = [0; NONCE_LEN];
        // By chance, since nobody counts for all workers; a key does not live to see a second one of these.
        SystemRandom::new().fill(&mut nonce).ok()?;
        let mut sealed = plain.to_vec();
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(name), &mut sealed)
            .ok()?;
        Some([&name[..], &nonce, &sealed].concat())
    }

    fn open(&self, ticket: &[u8], epoch: u64) -> Option<Vec<u8>> {
        if ticket.len() > MAX_TICKET {
            return None;
        }
        let (given, rest) = ticket.split_first_chunk::<NAME_LEN>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let epochs = [epoch, epoch.checked_sub(1)?];
        // A name is no secret: the client has it in its hand.
        let Keys { name, key } =
            epochs.into_iter().filter_map(|epoch| self.keys(epoch)).find(|keys| keys.name == *given)?;
        let mut sealed = sealed.to_vec();
        let plain =
            key.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(name), &mut sealed).ok()?;
        Some(plain.to_vec())
    }
}

/// By a clock that only goes on, and is the same for all workers. The first epoch has one before it.
fn epoch() -> u64 {
    now_millis() / 1000 / u64::from(EPOCH_SECONDS) + 1
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        EPOCH_SECONDS
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, epoch())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.open(cipher, epoch())
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_good_for_its_epoch_and_the_next_at_every_worker_that_asks_the_same() {
        let secret = TicketSecret::new().unwrap();
        let tickets = |secret, asked, authorities| Tickets::new(secret, asked, authorities);
        let made = tickets(&secret, CertReqs::Required, Some(b"ca")).seal(b"session", 7).unwrap();
        let other = TicketSecret::new().unwrap();
        for (opener, epoch, is_good) in [
            (tickets(&secret, CertReqs::Required, Some(b"ca")), 7, true),
            (tickets(&secret, CertReqs::Required, Some(b"ca")), 8, true),
            (tickets(&secret, CertReqs::Required, Some(b"ca")), 9, false),
            (tickets(&secret, CertReqs::Required, Some(b"ca")), 6, false),
            (tickets(&secret, CertReqs::Optional, Some(b"ca")), 7, false),
            (tickets(&secret, CertReqs::Required, Some(b"another")), 7, false),
            (tickets(&other, CertReqs::Required, Some(b"ca")), 7, false),
        ] {
            let opened = opener.open(&made, epoch);
            assert_eq!(opened.is_some(), is_good, "{epoch}");
            assert!(opened.is_none_or(|plain| plain == b"session"));
        }
    }

    #[test]
    fn what_a_client_makes_up_opens_nothing() {
        let tickets = Tickets::new(&TicketSecret::new().unwrap(), CertReqs::None, None);
        let made = tickets.seal(b"session", 1).unwrap();
        for at in 0..made.len() {
            let mut changed = made.clone();
            changed[at] ^= 1;
            assert_eq!(tickets.open(&changed, 1), None, "byte {at}");
            assert_eq!(tickets.open(&made[..at], 1), None, "cut at {at}");
        }
        assert_eq!(tickets.open(&vec![0; MAX_TICKET + 1], 1), None);
        assert_ne!(made, tickets.seal(b"session", 1).unwrap(), "each has a nonce of its own");
    }
}
