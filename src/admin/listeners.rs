//! How many connections wait to be accepted at each address, by the kernel's list of the network's sockets: the process needs no
//! listener for that, and keeps none open. Not here: which addresses there are (the master says so).

use serde_json::{Value, json};
use std::fmt::Write;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};

/// TCP_LISTEN, as the kernel writes it (include/net/tcp_states.h).
const LISTENING: &str = "0A";

/// An address, and what waits there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Queue<'a> {
    pub(super) on: &'a str,
    /// With `reuse_port` there are several at an address.
    pub(super) sockets: usize,
    pub(super) waiting: u64,
}

/// Those of the addresses that are TCP's and that the kernel tells of; the kernel counts no others.
pub(super) fn queues(addresses: &[String]) -> Vec<Queue<'_>> {
    let lists = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| match File::open(path) {
        Ok(file) => listening(BufReader::new(file)),
        Err(_) => Vec::new(),
    });
    let sockets = lists.concat();
    let of = |on| {
        let name = kernels_name(on)?;
        let at = sockets.iter().filter(|(local, _)| *local == name);
        let (sockets, waiting) = at.fold((0, 0), |(count, sum), (_, waiting)| (count + 1, sum + waiting));
        (sockets > 0).then_some(Queue { on, sockets, waiting })
    };
    addresses.iter().filter_map(|on| of(on)).collect()
}

/// The sockets that listen, with what waits at each. They stand before all others, of which there may be very many.
fn listening(list: impl BufRead) -> Vec<(String, u64)> {
    let socket = |line: String| {
        let mut fields = line.split_whitespace();
        let (local, state) = (fields.nth(1)?.to_owned(), fields.nth(1)?);
        let (_, waiting) = fields.next()?.split_once(':')?;
        (state == LISTENING).then_some((local, u64::from_str_radix(waiting, 16).ok()?))
    };
    list.lines().skip(1).map_while(|line| socket(line.ok()?)).collect()
}

/// As the list has it: in words of 32 bits, each in the machine's order (proc_net(5)). `None`: it is not TCP.
fn kernels_name(on: &str) -> Option<String> {
    let addr: SocketAddr = on.parse().ok()?;
    let octets = match addr.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let mut name = String::new();
    for word in octets.as_chunks::<4>().0 {
        let _ = write!(name, "{:08X}", u32::from_ne_bytes(*word));
    }
    let _ = write!(name, ":{:04X}", addr.port());
    Some(name)
}

/// Each address, with nulls where the kernel tells nothing, as of Unix sockets.
pub(super) fn tell(addresses: &[String], backlog: u32) -> Value {
    let queues = queues(addresses);
    let limit = limit(backlog);
    let one = |on: &String| {
        let queue = queues.iter().find(|queue| queue.on == on);
        json!({
            "on": on,
            "sockets": queue.map(|queue| queue.sockets),
            "waiting": queue.map(|queue| queue.waiting),
            "backlog": limit,
        })
    };
    addresses.iter().map(one).collect()
}

/// What the kernel makes of it, for each socket.
fn limit(backlog: u32) -> u32 {
    let most = fs::read_to_string("/proc/sys/net/core/somaxconn").ok();
    most.and_then(|most| most.trim().parse().ok()).map_or(backlog, |most: u32| most.min(backlog))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn what_waits_at_an_address_is_found_in_the_kernels_list() {
        for addr in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(addr) else { continue };
            let addr = listener.local_addr().unwrap();
            let on = [addr.to_string(), "unix:/nowhere".to_owned(), "127.0.0.1:1".to_owned()];
            let _waiting: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(addr).unwrap()).collect();
            assert_eq!(queues(&on), [Queue { on: &on[0], sockets: 1, waiting: 3 }]);
            let told = tell(&on, 7);
            assert_eq!(told[0], json!({ "on": on[0], "sockets": 1, "waiting": 3, "backlog": 7 }));
            assert_eq!(told[1]["waiting"], Value::Null);
        }
    }

    #[test]
    fn the_list_is_read_as_far_as_sockets_listen() {
        let list = "  sl  local_address rem_address   st tx_queue rx_queue\n\
             0: 0100007F:1F40 00000000:0000 0A 00000000:0000000B 00:0 0 0\n\
             1: 0100007F:1F40 0100007F:9C40 01 00000000:00000000 00:0 0 0\n\
             2: 0100007F:1F41 00000000:0000 0A 00000000:00000001 00:0 0 0\n";
        assert_eq!(listening(list.as_bytes()), [("0100007F:1F40".to_owned(), 11)]);
        assert!(listening("nonsense\n0: 1\n".as_bytes()).is_empty());
    }
}
