//! Ports for programs that cannot take one from the kernel. Not here: who listens.

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Below what the kernel gives out by itself, so that nobody else comes by one while it is free.
const FIRST: u16 = 10_240;
const COUNT: u16 = 20_480;

/// A port that nobody listens at, and that this process gives out once.
pub fn free_port() -> u16 {
    // Tests of other processes begin elsewhere.
    static TURN: LazyLock<AtomicU32> =
        LazyLock::new(|| AtomicU32::new(RandomState::new().hash_one(()) as u32));
    loop {
        let port = FIRST + (TURN.fetch_add(1, Relaxed) % u32::from(COUNT)) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}
